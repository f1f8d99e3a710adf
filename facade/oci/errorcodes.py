"""The one table from our reasons to HTTP status and OCI error code (interface.md, "Device port").

Guarantees: every error of `facade.errors` has an answer, and the same reason has the same answer on
every route. Codes are those of the OCI distribution-spec ("Error Codes"); where it has none, those
of CNCF distribution (UNAVAILABLE, UNKNOWN, RANGE_INVALID), which every Go client knows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

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
from facade.oci.request import Role
from facade.reasons import Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status and an OCI error code."""

    status: int
    code: str


_DENIED = Answer(403, "DENIED")
_BAD_GATEWAY = Answer(502, "UNKNOWN")
_GATEWAY_TIMEOUT = Answer(504, "UNKNOWN")
_UNAVAILABLE = Answer(503, "UNAVAILABLE")
_INTERNAL = Answer(500, "UNKNOWN")
_MANIFEST_UNKNOWN = Answer(404, "MANIFEST_UNKNOWN")
_BLOB_UNKNOWN = Answer(404, "BLOB_UNKNOWN")

BY_REASON: Mapping[Reason, Answer] = MappingProxyType(
    {
        Reason.NOT_SIGNED: _DENIED,
        Reason.BY_TAG: _DENIED,
        Reason.DEVICE_REVOKED: _DENIED,
        Reason.IDENTITY: _DENIED,
        Reason.HOST_NOT_CONNECTED: _DENIED,
        Reason.LISTING: _DENIED,
        Reason.DIGEST_INVALID: Answer(400, "DIGEST_INVALID"),
        Reason.NAME_INVALID: Answer(400, "NAME_INVALID"),
        Reason.RANGE_INVALID: Answer(416, "RANGE_INVALID"),
        Reason.UNSUPPORTED: Answer(405, "UNSUPPORTED"),
        Reason.NOT_FOUND: Answer(404, "NAME_UNKNOWN"),
        Reason.UPSTREAM_NOT_FOUND: _MANIFEST_UNKNOWN,
        Reason.UPSTREAM_RATE_LIMITED: Answer(429, "TOOMANYREQUESTS"),
        Reason.UPSTREAM_REFUSED: _BAD_GATEWAY,
        Reason.UPSTREAM_UNREACHABLE: _GATEWAY_TIMEOUT,
        Reason.DEADLINE: _GATEWAY_TIMEOUT,
        Reason.INTEGRITY: _BAD_GATEWAY,
        Reason.OVERLOADED: _UNAVAILABLE,
        Reason.DEVICE_RATE_LIMITED: Answer(429, "TOOMANYREQUESTS"),
        Reason.METADATA_EXPIRED: _UNAVAILABLE,
        Reason.METADATA_UNAVAILABLE: _UNAVAILABLE,
        Reason.CLOCK_SET_BACK: _UNAVAILABLE,
        Reason.CLOSURE_INCOMPLETE: _UNAVAILABLE,
        Reason.CONTROL_UNAVAILABLE: _UNAVAILABLE,
        Reason.DENY_LIST_TOO_OLD: _UNAVAILABLE,
        Reason.INTERNAL: _INTERNAL,
    }
)
"""Every reason's answer; UPSTREAM_NOT_FOUND's code depends on the role too: see `answer_for`."""

_BY_CLASS: tuple[tuple[type[FacadeError], Answer], ...] = (
    (Conflict, Answer(409, "DENIED")),
    (Invalid, Answer(400, "UNSUPPORTED")),
    (Denied, _DENIED),
    (NotFound, Answer(404, "NAME_UNKNOWN")),
    (Upstream, _BAD_GATEWAY),
    (Integrity, _BAD_GATEWAY),
    (Unavailable, _UNAVAILABLE),
    (FacadeError, _INTERNAL),
)


def answer_for(error: FacadeError, role: Role | None = None) -> Answer:
    """The answer to `error`: by its reason, or by its class when it has none.

    Arguments:
        role: what was asked for; a blob missing upstream is BLOB_UNKNOWN, anything else missing
            there MANIFEST_UNKNOWN.
    """
    if error.reason is Reason.UPSTREAM_NOT_FOUND and role is Role.BLOB:
        return _BLOB_UNKNOWN
    if error.reason is not None:
        return BY_REASON[error.reason]
    return next(answer for kind, answer in _BY_CLASS if isinstance(error, kind))


def body(code: str, message: str, reason: Reason | None, request_id: str) -> bytes:
    """The OCI error body as JSON (OCI distribution-spec, "Error Codes")."""
    detail = {"reason": str(reason or Reason.INTERNAL), "request_id": request_id}
    return json.dumps(
        {"errors": [{"code": code, "message": message, "detail": detail}]}, separators=(",", ":")
    ).encode()
