"""Strict JSON: what the codecs of this room are made of.

Guarantees: `load` and the readers of `Fields` raise `Malformed` for whatever is not exactly what was
asked for (a missing or an unknown field, another type, a number out of range, a duplicate name), and
nothing else, whatever the input. What `dump` writes, `load` gives back. Does not bound the input's
size: whoever reads it from a socket does.
"""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from facade.errors import FacadeError

T = TypeVar("T")

MAX_INTEGER = 2**63 - 1
_INFINITIES = {"inf": math.inf, "-inf": -math.inf}


class Malformed(ValueError):
    """What came over the socket is not what the protocol says; names the field, never its value."""


def dump(value: object) -> bytes:
    """JSON in ASCII. Infinite numbers go by `number`; a bare one is a defect here (ValueError)."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def load(data: bytes) -> Any:
    """Read JSON. Raises Malformed."""
    try:
        return json.loads(data, object_pairs_hook=_object, parse_constant=_constant)
    except Malformed:
        raise
    except (ValueError, RecursionError):  # also: not UTF-8, thousands of digits
        raise Malformed("not JSON") from None  # json's error holds the whole text, secrets too


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("a name stands twice in one object")
    return made


def _constant(_: str) -> NoReturn:
    raise Malformed("a number that is none")


def number(value: float) -> float | str:
    """A float as JSON holds it: infinities by name (a revocation for good is infinite)."""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(value)


class Fields:
    """The fields of one JSON object, each to be read once; `done` refuses what was not read.

    Arguments:
        what: the value's name, for messages.
    """

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise Malformed(f"{what}: not an object")
        self._left = dict(value)
        self._what = what

    def done(self) -> None:
        """Raise Malformed when there were other fields."""
        if self._left:
            raise Malformed(f"{self._what}: {len(self._left)} unknown fields")

    def any(self, name: str) -> object:
        """Whatever it is."""
        if name not in self._left:
            raise Malformed(f"{self._what}: {name} is missing")
        return self._left.pop(name)

    def text(self, name: str) -> str:
        """A string."""
        return self._of(str, name)

    def flag(self, name: str) -> bool:
        """True or false."""
        return self._of(bool, name)

    def integer(self, name: str) -> int:
        """A whole number of at most 63 bits."""
        value = self.any(name)
        if type(value) is not int or abs(value) > MAX_INTEGER:
            raise self._wrong(name)
        return value

    def number(self, name: str) -> float:
        """A float, as `number` writes it."""
        return as_number(self.any(name), f"{self._what}: {name}")

    def items(self, name: str) -> Iterator[object]:
        """A list's items."""
        yield from self._of(list, name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        found = tuple(self.items(name))
        if not all(isinstance(item, str) for item in found):
            raise self._wrong(name)
        return tuple(str(item) for item in found)

    def mapping(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        found = self._of(dict, name)
        if not all(isinstance(item, str) for item in found.values()):
            raise self._wrong(name)
        return found

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        """A string that `parse` reads, and that is how its result is written."""
        text = self.text(name)
        try:
            value = parse(text)
        except (ValueError, FacadeError) as error:
            raise self._wrong(name) from error
        if str(value) != text:
            raise self._wrong(name)
        return value

    def optional(self, name: str, read: Callable[[str], T]) -> T | None:
        """What `read` (one of these methods) reads, or None for null."""
        if self._left.get(name, "") is None:
            del self._left[name]
            return None
        return read(name)

    def _of(self, kind: type[T], name: str) -> T:
        value = self.any(name)
        if not isinstance(value, kind):
            raise self._wrong(name)
        return value

    def _wrong(self, name: str) -> Malformed:
        return Malformed(f"{self._what}: {name} is not of its kind")


def as_number(value: object, what: str) -> float:
    """A float, as `number` writes it. Raises Malformed."""
    if isinstance(value, str) and value in _INFINITIES:
        return _INFINITIES[value]
    if type(value) is int or type(value) is float:
        try:
            made = float(value)
        except OverflowError:
            made = math.inf
        if math.isfinite(made):
            return made
    raise Malformed(f"{what}: not a number")


def pair(value: object, what: str) -> tuple[object, object]:
    """A list of two. Raises Malformed."""
    if not isinstance(value, list) or len(value) != 2:
        raise Malformed(f"{what}: not a pair")
    return value[0], value[1]
