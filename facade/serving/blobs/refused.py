"""Why a registry gave nothing, told by the process that asked it to those that follow it (`tail`).

Guarantees: it is noted on the partial itself, once that has lost its name: no later transfer finds it, and it
goes with the last who has the file open. What cannot be noted (a file system without extended attributes),
or is no refusal of a registry, is as if nothing had been noted: who followed asks the registry himself.
What touches a file blocks.
"""

import contextlib
import json
import math
import os

from facade.errors import Upstream
from facade.reasons import Reason

MAX_WORDS = 500
"""Characters of the message that are passed on."""
MAX_RETRY_AFTER_SECONDS = 24 * 3600.0
_ATTRIBUTE = "user.facade.refusal"
_REASONS = frozenset(
    {
        Reason.UPSTREAM_NOT_FOUND,
        Reason.UPSTREAM_RATE_LIMITED,
        Reason.UPSTREAM_REFUSED,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.DEADLINE,
    }
)


def note(fd: int, error: Upstream) -> None:
    """Leave it with the open file `fd`."""
    fields = (error.reason, error.message[:MAX_WORDS], error.status, error.retry_after)
    with contextlib.suppress(OSError):
        os.setxattr(fd, _ATTRIBUTE, json.dumps(fields).encode())


def noted(fd: int) -> Upstream | None:
    """What was left with it."""
    try:
        return read_note(os.getxattr(fd, _ATTRIBUTE))
    except OSError:
        return None


def read_note(data: bytes) -> Upstream | None:
    """The refusal that `note` wrote; None for anything else."""
    try:
        reason, message, status, retry_after = json.loads(data)
        if not (_is_message(message) and _is_status(status) and _is_wait(retry_after)):
            return None
        passed = Reason(reason)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    if passed not in _REASONS:
        return None
    return Upstream(message, reason=passed, status=status, retry_after=retry_after)


def _is_message(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_WORDS


def _is_status(value: object) -> bool:
    return value is None or (type(value) is int and 100 <= value <= 599)


def _is_wait(value: object) -> bool:
    if value is None:
        return True
    return (
        type(value) in (int, float)
        and math.isfinite(value)  # type: ignore[arg-type]  # a number, as the line above says
        and 0 <= value <= MAX_RETRY_AFTER_SECONDS  # type: ignore[operator]  # likewise
    )
