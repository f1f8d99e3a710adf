"""What both servers of this room do with a request: read it within bounds, answer, or say what failed.

Guarantees: a `FacadeError` goes to the caller as it is; a request that cannot be read is `Invalid`; a
defect here is logged and goes as `Unavailable`, without its words. Nothing of a body is logged.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from facade.errors import FacadeError, Invalid, Unavailable
from facade.link.calls import OCTETS, RETRY_AFTER_SECONDS
from facade.link.errors_codec import error_out
from facade.link.strict import Malformed, dump
from facade.reasons import Reason

log = structlog.get_logger(__name__)

BODY_SECONDS = 10.0
"""For a whole request: it is small, and was written before it was sent."""
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""A connection with its settings (a CA bundle of 64 KiB) and challenges, or a batch of reports."""
MAX_INTAKE_BYTES = 128 * 1024 * 1024
"""Of all requests together. Honest ones have some KiB each; a worker that was taken over must not have the control
side, which everybody needs, run out of memory."""
ERROR_STATUS = 422
"""Of every answer that is an error; its body says which."""

Work = Callable[[bytes], Awaitable[bytes]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Intake:
    """How much of the requests that are read and worked on may be in memory, of all callers together.

    Arguments:
        most: bytes.
    """

    def __init__(self, most: int = MAX_INTAKE_BYTES) -> None:
        self._most = most
        self._held = 0

    def take(self, count: int) -> None:
        """Make room for `count` bytes. Raises Unavailable when there is none."""
        if self._held + count > self._most:
            raise Unavailable(
                "The control side of this facade is asked too much at once. Try again in a moment.",
                reason=Reason.INTERNAL,
                retry_after=RETRY_AFTER_SECONDS,
            )
        self._held += count

    def give_back(self, count: int) -> None:
        """Their request is done with."""
        self._held -= count


def answering(work: Work, intake: Intake | None = None) -> Handler:
    """A handler that answers with what `work` makes of the body.

    Arguments:
        intake: bounds it together with others'; None where the caller is trusted.
    """

    async def handle(request: web.Request) -> web.Response:
        taken: list[int] = []

        def grew(count: int) -> None:
            if intake is not None:
                intake.take(count)
                taken.append(count)

        try:
            data = await work(await read_body(request, grew))
        except Exception as error:  # noqa: BLE001 - told apart, and logged, there
            return web.Response(
                status=ERROR_STATUS, body=dump(error_out(told(error))), content_type=OCTETS
            )
        finally:
            if intake is not None:
                intake.give_back(sum(taken))
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


async def read_body(request: web.Request, grew: Callable[[int], None] = lambda _: None) -> bytes:
    """The whole body. Raises Malformed when it is too long or too slow, and what `grew` raises, which is
    told of each piece.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > MAX_REQUEST_BYTES:
                    raise Malformed(f"more than {MAX_REQUEST_BYTES} bytes")
                grew(len(chunk))
                parts.append(chunk)
    except TimeoutError:
        raise Malformed(f"not whole within {BODY_SECONDS:g} s") from None
    return b"".join(parts)
