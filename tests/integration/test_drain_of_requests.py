"""A drain of a port is over when it says so, whatever the HTTP server has in hand."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import web

from facade.server import Handler, runner_for

pytestmark = pytest.mark.slow

DRAIN_SECONDS = 4.0


def _application(handler: Handler) -> web.Application:
    application = web.Application()
    application.router.add_get("/", handler)
    return application


@pytest.mark.parametrize("app", [lambda handler: handler, _application], ids=["device", "operator"])
async def test_a_request_that_does_not_end_is_given_up_after_the_drain_and_not_after_two(
    app: Callable[[Handler], Handler | web.Application],
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def never(_: web.BaseRequest) -> web.StreamResponse:
        began.set()
        try:
            await asyncio.Event().wait()
            return web.Response()
        finally:
            ended.set()

    runner = runner_for(app(never), drain_seconds=DRAIN_SECONDS)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await began.wait()
    server.close()
    async with asyncio.timeout(1.75 * DRAIN_SECONDS):  # workers are killed five seconds after it
        await runner.cleanup()
        await ended.wait()
    writer.close()
