"""Errors ↔ JSON. Pure.

Guarantees: an error arrives as the class of `facade.errors` that it is (a subclass of another room as
the nearest of these), with its message, reason, retry-after and status. Causes and tracebacks
stay where they are.
"""

from collections.abc import Mapping
from typing import Any

from facade.errors import (
    Conflict,
    Denied,
    FacadeError,
    Integrity,
    Invalid,
    NotFound,
    Unavailable,
    Upstream,
)
from facade.link.strict import Fields, Malformed, number
from facade.reasons import Reason

_KINDS: Mapping[str, type[FacadeError]] = {
    kind.__name__: kind
    for kind in (
        *(FacadeError, Invalid, Conflict, Denied, NotFound, Upstream, Integrity, Unavailable),
    )
}


def error_out(error: FacadeError) -> dict[str, Any]:
    """What is said of an error."""
    kind = next(each for each in type(error).__mro__ if each in _KINDS.values())
    after = error.retry_after
    return {
        "kind": kind.__name__,
        "message": error.message,
        "reason": None if error.reason is None else error.reason.value,
        "retry_after": None if after is None else number(after),
        "status": error.status if isinstance(error, Upstream) else None,
    }


def error_in(value: object) -> FacadeError:
    """The error, to be raised. Raises Malformed."""
    fields = Fields(value, "error")
    kind = _KINDS.get(fields.text("kind"))
    message = fields.text("message")
    reason = fields.optional("reason", lambda name: fields.parsed(name, Reason))
    after = fields.optional("retry_after", fields.number)
    status = fields.optional("status", fields.integer)
    fields.done()
    if kind is Upstream and reason is not None:
        return Upstream(message, reason=reason, status=status, retry_after=after)
    if kind is None or kind is Upstream or status is not None:
        raise Malformed("error: not of its kind")
    if kind is Integrity:
        if reason is not Reason.INTEGRITY or after is not None:
            raise Malformed("error: not of its kind")
        return Integrity(message)
    return kind(message, reason=reason, retry_after=after)
