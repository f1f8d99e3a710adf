"""One log line and one id per request of the operator port.

Guarantees: every answer carries `X-Request-Id`, and every line logged while it was made carries the
same id; the line names the route's template, never the path, query or body.
"""

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from facade.clock import Clock
from facade.observability.logs import new_request_id, request_context

log = structlog.get_logger(__name__)

REQUEST_ID = web.RequestKey("request_id", str)
HEADER = "X-Request-Id"


def journal_middleware(clock: Clock) -> Middleware:
    """Outermost of all: sees every answer, the refusals too."""

    @web.middleware
    async def journal(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = new_request_id()
        request[REQUEST_ID] = request_id
        started = clock.monotonic()
        with request_context(request_id):
            response = await handler(request)
            log.info(
                "operator_request",
                route=f"{request.method} {route_of(request)}",
                status=response.status,
                seconds=round(clock.monotonic() - started, 4),
                peer=request.remote,
            )
        return response

    return journal


def route_of(request: web.Request) -> str:
    """The template of the route that answers, "unknown" when there is none."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
