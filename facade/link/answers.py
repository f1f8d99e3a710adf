"""What both servers of this room do with a request: read it within bounds, answer, or say what failed.

Guarantees: a `FacadeError` goes to the caller as it is; a request that cannot be read is `Invalid`; a
defect here is logged and goes as `Unavailable`, without its words. Nothing of a body is logged.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from facade.errors import FacadeError, Invalid, Unavailable
from facade.link.calls import OCTETS
from facade.link.errors_codec import error_out
from facade.link.strict import Malformed, dump
from facade.reasons import Reason

log = structlog.get_logger(__name__)

BODY_SECONDS = 10.0
"""For a whole request: it is small, and was written before it was sent."""
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""A connection with its settings (a CA bundle of 64 KiB) and challenges, or a batch of reports."""
ERROR_STATUS = 422
"""Of every answer that is an error; its body says which."""

Work = Callable[[bytes], Awaitable[bytes]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(work: Work) -> Handler:
    """A handler that answers with what `work` makes of the body."""

    async def handle(request: web.Request) -> web.Response:
        try:
            data = await work(await read_body(request))
        except Exception as error:  # noqa: BLE001 - told apart, and logged, there
            return web.Response(
                status=ERROR_STATUS, body=dump(error_out(told(error))), content_type=OCTETS
            )
        return web.Response(body=data, content_type=OCTETS)

    return handle


def told(error: Exception) -> FacadeError:
    """What the caller is told of a failure."""
    if isinstance(error, FacadeError):
        return error
    if isinstance(error, Malformed):
        return Invalid(f"The request between our processes cannot be read ({error}).")
    log.error("link_request_failed", exc_info=error)
    return Unavailable(
        "The other side of this facade met a defect of its own; its log has the details.",
        reason=Reason.INTERNAL,
    )


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises Malformed when it is too long or too slow."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > MAX_REQUEST_BYTES:
                    raise Malformed(f"more than {MAX_REQUEST_BYTES} bytes")
                parts.append(chunk)
    except TimeoutError:
        raise Malformed(f"not whole within {BODY_SECONDS:g} s") from None
    return b"".join(parts)
