"""The exception tree. Who is at fault decides the branch:

    FacadeError
    ├── Invalid        the caller sent something malformed          (400; CLI exit 2 or 1)
    │   └── Conflict   well-formed, but it contradicts what exists  (409)
    ├── Denied         understood and not allowed                   (403)
    ├── NotFound       the thing named does not exist here          (404)
    ├── Upstream       the customer's registry or token service     (404, 429, 502, 504)
    ├── Integrity      bytes or signatures that do not match        (502)
    └── Unavailable    we cannot decide or serve just now           (503)

Third-party exceptions are wrapped where they enter (`raise … from error`), so nothing
above an adapter names a foreign exception. Messages are sentences for people: what was
wrong, where, what to do. They never carry a secret, and those for devices name nothing
that the request did not name.
"""

from facade.reasons import Reason


class FacadeError(Exception):
    """Root of every error that Facade raises on purpose.

    Arguments:
        message: one sentence for a person.
        reason: which check failed, when it has a name.
        retry_after: seconds after which a retry may succeed, when known.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.retry_after = retry_after


class Invalid(FacadeError):
    """The input is malformed; nothing was done."""


class Conflict(Invalid):
    """The input is well-formed but contradicts what already exists."""


class Denied(FacadeError):
    """Understood, and not allowed."""


class NotFound(FacadeError):
    """The thing named does not exist here."""


class Upstream(FacadeError):
    """The registry or its token service failed or refused.

    `status` is the HTTP status it answered with, None when it did not answer.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, reason=reason, retry_after=retry_after)
        self.status = status


class Integrity(FacadeError):
    """Bytes, lengths or signatures do not match. Never a cache miss, never a 404."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason=Reason.INTEGRITY)


class Unavailable(FacadeError):
    """It cannot be decided or served just now; the caller may retry."""
