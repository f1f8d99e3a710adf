"""A string that does not show itself.

Guarantees: `repr`, `str`, f-strings and pickles of a `Secret` never hold its value; only `reveal()`
gives it. Comparison is constant-time. Does not guarantee that memory is wiped.
"""

import hmac
from typing import NoReturn


class Secret:
    """A password, token or assertion. Call `reveal()` at the last moment, where it is sent."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Secret is not pickled.")
