"""The Range header of a request for one representation (RFC 9110, 14.1.2 and 14.2).

Guarantees: a `ByteRange` lies within the size it was parsed against and is not empty. One range is
understood; several, other units and malformed headers mean the whole, as the RFC allows.
"""

import re
from dataclasses import dataclass

from facade.errors import Invalid
from facade.reasons import Reason

_HEADER = re.compile(r"bytes=[ \t]*(\d*)-(\d*)[ \t]*", re.ASCII | re.IGNORECASE)
_MAX_DIGITS = 18
"""More digits than any size has; int() refuses thousands of them with a ValueError."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def content_range(self, size: int) -> str:
        """The Content-Range value in a whole of `size` bytes (RFC 9110, 14.4)."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """What part of `size` bytes to send; None = the whole, with status 200.

    Raises Invalid (RANGE_INVALID) when the range is well-formed and cannot be satisfied: 416.
    """
    match = _HEADER.fullmatch(header) if header is not None else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        suffix = _number(last)
        if suffix and not size:
            return None  # satisfiable, and there is no way to say "no bytes" in Content-Range
        return _checked(max(0, size - suffix), size, size)
    start = _number(first)
    if last and _number(last) < start:
        return None  # invalid, which is to be ignored
    return _checked(start, min(_number(last) + 1, size) if last else size, size)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _checked(start: int, stop: int, size: int) -> ByteRange:
    if start >= stop:
        raise Invalid(f"The range lies outside the {size} bytes.", reason=Reason.RANGE_INVALID)
    return ByteRange(start, stop)
