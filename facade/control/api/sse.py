"""Progress as server-sent events (WHATWG HTML, 9.2): `progress` events, then one `result`.

Guarantees: a failure before the first event is an ordinary JSON error with its own status; after
it, one `error` event with the same body. A listener that goes away cancels the work; a slow one
loses progress events, never the result. Silence is broken by a comment every few seconds, so that
neither side takes the other for dead.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import web

from facade.control.api.errors import INTERNAL, ListenerGone
from facade.errors import FacadeError

log = structlog.get_logger(__name__)

KEEP_ALIVE_SECONDS = 5.0
_MAX_WAITING = 256
"""Progress events kept for a slow listener; newer ones are dropped."""

MEDIA_TYPE = "text/event-stream"
Run = Callable[[Callable[[Mapping[str, Any]], None]], Awaitable[dict[str, Any]]]


def wanted(request: web.Request) -> bool:
    """Whether the client asked for events."""
    return MEDIA_TYPE in request.headers.get("Accept", "")


def encode(event: str, data: Mapping[str, Any]) -> bytes:
    """One event. JSON without line breaks, so one `data` line is enough."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def respond(request: web.Request, run: Run) -> web.StreamResponse:
    """Run the work and stream its progress.

    Raises whatever the work raised, when that was before its first event.
    """
    waiting: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(_MAX_WAITING)

    def progress(event: Mapping[str, Any]) -> None:
        with suppress(asyncio.QueueFull):
            waiting.put_nowait(event)

    work = asyncio.ensure_future(run(progress))
    try:
        return await _stream(request, work, waiting)
    except (ListenerGone, asyncio.CancelledError):
        # Nobody listens any more: an operator's Ctrl-C stops the batch; running it again finishes it.
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise


async def _stream(
    request: web.Request,
    work: "asyncio.Future[dict[str, Any]]",
    waiting: asyncio.Queue[Mapping[str, Any]],
) -> web.StreamResponse:
    first = await _next(work, waiting)
    if first is None and work.done() and work.exception() is not None:
        work.result()
    response = web.StreamResponse(
        headers={"Content-Type": f"{MEDIA_TYPE}; charset=utf-8", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    event = first
    while True:
        if event is not None:
            await _send(response, encode("progress", event))
        elif work.done():
            break
        else:
            await _send(response, b": still working\n\n")
        event = await _next(work, waiting)
    try:
        await _send(response, encode("result", work.result()))
    except FacadeError as error:
        await _send(response, encode("error", {"error": error.message}))
    except Exception:
        # The status has been sent: the caller gets the one shape here, the log gets the rest.
        log.exception("operator_request_failed", route=request.path)
        await _send(response, encode("error", {"error": INTERNAL}))
    with suppress(ConnectionError):
        await response.write_eof()
    return response


async def _send(response: web.StreamResponse, data: bytes) -> None:
    try:
        await response.write(data)
    except ConnectionError as error:
        raise ListenerGone from error


async def _next(
    work: "asyncio.Future[dict[str, Any]]", waiting: asyncio.Queue[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """The next event; None when the work is done and all were told, or nothing came for a while."""
    if not waiting.empty():
        return waiting.get_nowait()
    if work.done():
        return None
    getter = asyncio.ensure_future(waiting.get())
    try:
        either: set[asyncio.Future[Any]] = {getter, work}
        await asyncio.wait(either, timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return getter.result() if getter.done() else None
    finally:
        getter.cancel()
