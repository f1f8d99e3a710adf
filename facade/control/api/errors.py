"""The one place where an error becomes an answer of the operator port (interface.md, "Errors").

Guarantees: every answer that is no success is `{"error": "one sentence"}` with the status of the
table; an unexpected exception is logged with its traceback and shows the caller nothing but a
request id. Never repeats a request's body: it may hold a secret.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from facade.control.api.journal import route_of
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
from facade.reasons import Reason

log = structlog.get_logger(__name__)

_STATUS: tuple[tuple[type[FacadeError], int], ...] = (
    (Conflict, 409),
    (Invalid, 400),
    (Denied, 403),
    (NotFound, 404),
    (Upstream, 422),  # the registry's own refusal, in its (redacted) words
    (Integrity, 502),
    (Unavailable, 503),
)
_UPSTREAM_STATUS = {Reason.UPSTREAM_UNREACHABLE: 502, Reason.DEADLINE: 504}
MAX_BODY_BYTES = 1024 * 1024
"""Largest request body: a batch of tags, or a CA bundle."""
INTERNAL = "Something broke inside the facade; its log says what."
_MAX_PROBLEMS = 5
"""How many validation problems one answer lists."""


class Unauthorized(FacadeError):
    """No API key, or not a valid one (401)."""


class TooManyFailures(FacadeError):
    """Too many failed keys from this address (429)."""


class ListenerGone(ConnectionResetError):
    """Whoever listened to a stream has left: nobody is there to be answered."""


class TooLarge(FacadeError):
    """The request's body is over the limit (413)."""


def status_of(error: FacadeError) -> int:
    """The HTTP status for an error."""
    if isinstance(error, Upstream) and error.reason in _UPSTREAM_STATUS:
        return _UPSTREAM_STATUS[error.reason]
    for kind, status in (
        (Unauthorized, 401),
        (TooManyFailures, 429),
        (TooLarge, 413),
        *_STATUS,
    ):
        if isinstance(error, kind):
            return status
    return 500


def answer(error: FacadeError) -> web.Response:
    """The response for an error."""
    headers = {}
    status = status_of(error)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="facade"'
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return json_response({"error": error.message}, status=status, headers=headers)


def json_response(
    body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer; non-ASCII stays readable."""
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.json_response(text=text, status=status, headers=headers)


def invalid(error: ValidationError, where: str) -> Invalid:
    """A pydantic validation error as one sentence, without the offending input.

    Arguments:
        where: "body" or "query", for the sentence.
    """
    items = error.errors(include_url=False, include_context=False, include_input=False)
    inner = {item["loc"][:depth] for item in items for depth in range(1, len(item["loc"]))}
    problems = [
        _problem(dict(item))
        for item in items
        # A list is "too short" of valid items when one of its items is the problem.
        if not (item["type"] == "too_short" and item["loc"] in inner)
    ]
    more = f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
    return Invalid(f"The {where} is not valid: {'; '.join(problems[:_MAX_PROBLEMS])}{more}.")


def _problem(item: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ").rstrip(".")
    if item["type"] == "extra_forbidden":
        message = "no such field"
    elif item["type"] == "json_invalid":
        message = "it is no JSON"
    elif item["type"] == "missing":
        message = "is required"
    return f"{where}: {message}" if where else message


@web.middleware
async def errors_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into the one shape."""
    try:
        return await handler(request)
    except FacadeError as error:
        return answer(error)
    except web.HTTPRequestEntityTooLarge:
        return answer(TooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes."))
    except web.HTTPNotFound:
        return json_response(
            {"error": "There is no such route; GET /api/v1/openapi.json lists them."}, status=404
        )
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return json_response(
            {"error": f"This route takes {allowed}."}, status=405, headers={"Allow": allowed}
        )
    except web.HTTPException as error:
        return json_response({"error": f"{error.reason}."}, status=error.status)
    except ListenerGone:
        raise
    except Exception:
        # The last resort of a server: the caller gets no internals, the log gets all of them.
        log.exception("operator_request_failed", method=request.method, route=route_of(request))
        return json_response({"error": INTERNAL}, status=500)
