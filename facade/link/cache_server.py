"""`CachePort` served on a worker's own Unix socket, with what it counts and how it is.

Guarantees: a job (warm, verify, prune) shows a sign of life every `BEAT_SECONDS`, so that its caller
can tell long from dead; it is cancelled when the caller is gone, and what it shares with others goes
on for them. Who may connect is decided at the socket (`unix`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from facade.link.answers import Handler, answering, read_body, told
from facade.link.cache_codec import status_out, warm_request_in, warm_result_out
from facade.link.calls import OCTETS
from facade.link.errors_codec import error_out
from facade.link.strict import dump, load
from facade.wings import CachePort

BEAT_SECONDS = 2.0
BEAT = b"\n"
"""JSON lets white space stand before a value (RFC 8259, section 2)."""

Job = Callable[[bytes], Awaitable[Any]]


def cache_app(
    cache: CachePort,
    *,
    metrics: Callable[[], bytes],
    health: Callable[[], bytes],
) -> web.Application:
    """The application that `cache_client.SocketCachePort` speaks to.

    Arguments:
        metrics: the worker's samples, encoded; opaque here.
        health: its findings, encoded; opaque here.
    """

    async def refresh(_: bytes) -> bytes:
        return dump(await cache.refresh())

    async def status(_: bytes) -> bytes:
        return dump(status_out(await cache.status()))

    async def show_metrics(_: bytes) -> bytes:
        return metrics()

    async def show_health(_: bytes) -> bytes:
        return health()

    async def warm(body: bytes) -> Any:
        connection, repository, digest, size, fetch = warm_request_in(load(body))
        result = await cache.warm(connection, repository, digest, size, fetch=fetch)
        return warm_result_out(result)

    async def verify(_: bytes) -> Any:
        return list(await cache.verify())

    async def prune(_: bytes) -> Any:
        return list(await cache.prune())

    app = web.Application()
    app.router.add_post("/refresh", answering(refresh))
    app.router.add_post("/status", answering(status))
    app.router.add_get("/metrics-samples", answering(show_metrics))
    app.router.add_get("/health", answering(show_health))
    app.router.add_post("/warm", working(warm))
    app.router.add_post("/verify", working(verify))
    app.router.add_post("/prune", working(prune))
    return app


def working(job: Job, *, beat_seconds: float = BEAT_SECONDS) -> Handler:
    """A handler that runs `job` as long as it takes and its caller stays."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = OCTETS
        work = asyncio.ensure_future(_outcome(job, request))
        try:
            await response.prepare(request)
            while not (await asyncio.wait({work}, timeout=beat_seconds))[0]:
                await response.write(BEAT)
        finally:
            work.cancel()  # does nothing once it is done
            await asyncio.wait({work})
        await response.write(dump(work.result()))
        return response

    return handle


async def _outcome(job: Job, request: web.Request) -> dict[str, Any]:
    try:
        return {"value": await job(await read_body(request)), "error": None}
    except Exception as error:  # noqa: BLE001 - told apart, and logged, there
        return {"value": None, "error": error_out(told(error))}
