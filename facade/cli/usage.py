"""What was wrong with the command itself, as opposed to what failed while doing it.

Guarantees: only a `Usage` (and typer's own complaints) end in exit code 2; an `Invalid` from deeper down,
like a broken configuration or a port in use, is a failure (1).
"""

from collections.abc import Callable
from typing import TypeVar

from facade.errors import Invalid

T = TypeVar("T")


class Usage(Invalid):
    """An argument, option, or file named by one, cannot be used."""


def argument(parse: Callable[[str], T], text: str) -> T:
    """Parse an argument. Raises Usage where `parse` raises Invalid."""
    try:
        return parse(text)
    except Invalid as error:
        raise Usage(error.message, reason=error.reason) from error
