"""Listeners, signals and drain: how the wired applications get onto their ports and off again.

Guarantees: SIGTERM and SIGINT stop accepting, let what runs finish within `DRAIN_SECONDS`, then close; a
second signal stops at once; SIGHUP reloads what can be reloaded. Does not wire anything: `app` does.
"""

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from facade.listening import BACKLOG, DRAIN_SECONDS, bind, url_of

log = structlog.get_logger(__name__)

ACCEPT_AT_ONCE = 64
"""Connections accepted before the loop does anything else, refusing some of them included: a burst
must not take all descriptors, nor the loop's time."""
KEEP_ALIVE_SECONDS = 75.0
LINGER_SECONDS = 2.0
"""How long a request's announced body is waited for after the answer (RFC 9112, 9.6): no request to
the device port has one, and a connection that waits for one costs its slot."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers every request of a port by itself: no routes, no middleware, nothing in between."""
ProtocolFactory = Callable[[], asyncio.BaseProtocol]
Layer = Callable[[Callable[[], asyncio.Protocol]], ProtocolFactory]
"""Puts something (our TLS) between the socket and aiohttp's protocol."""


@dataclass(frozen=True, slots=True)
class Port:
    """One listening port.

    Arguments:
        name: "device", "operator" or "metrics", for messages and the `ready` line.
        listen: host and port; port 0 = any free one.
        app: what answers there.
        tls: https with this context.
        layer: instead of `tls`: a transport layer of our own; the port then speaks https too.
        idle_seconds: how long a connection may stay without a request.
        bound: a listening socket to use, instead of binding one.
    """

    name: str
    listen: tuple[str, int]
    app: web.Application | Handler
    tls: ssl.SSLContext | None = None
    layer: Layer | None = None
    idle_seconds: float = KEEP_ALIVE_SECONDS
    bound: socket.socket | None = None

    def url(self, bound: socket.socket) -> str:
        """`scheme://HOST:PORT` as bound."""
        return url_of(bound, "https" if self.tls or self.layer else "http")


class Server:
    """The ports of one process.

    Arguments:
        ports: what to listen on.
        reload: called on SIGHUP.
        draining: called once, when the drain begins.
    """

    def __init__(
        self,
        ports: Sequence[Port],
        *,
        reload: Callable[[], None] = lambda: None,
        draining: Callable[[], None] = lambda: None,
    ) -> None:
        self._ports = ports
        self._reload = reload
        self._draining = draining
        self._stopping = asyncio.Event()
        self._stack = AsyncExitStack()
        self.urls: dict[str, str] = {}

    async def start(self) -> None:
        """Bind every port, then answer on all of them. Raises Invalid when one is not to be had."""
        sockets: list[socket.socket] = []
        try:
            sockets.extend(port.bound or bind(port.name, *port.listen) for port in self._ports)
            for port, sock in zip(self._ports, sockets, strict=True):
                await self._answer(port, sock)
                self.urls[port.name] = port.url(sock)
        except BaseException:
            for sock in sockets:
                sock.close()
            await self._stack.aclose()
            raise

    def heed_signals(self, *, hasty: bool = True) -> None:
        """From now on SIGTERM and SIGINT end `wait`; SIGHUP reloads.

        Arguments:
            hasty: a second one ends the process. (A worker's parent says when, and a service
                manager's signal to the whole group must not double its own.)
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number, hasty)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    async def wait(self) -> None:
        """Return when a signal says to stop; see `heed_signals`."""
        await self._stopping.wait()

    async def close(self) -> None:
        """Stop accepting, let what runs finish, close."""
        self._draining()
        await self._stack.aclose()

    def _stop(self, number: signal.Signals, hasty: bool) -> None:
        if self._stopping.is_set():
            if not hasty:
                return
            log.warning("stopping_at_once", signal=number.name)
            os._exit(128 + number)
        log.info("draining", signal=number.name, seconds=DRAIN_SECONDS)
        self._stopping.set()

    async def _answer(self, port: Port, sock: socket.socket) -> None:
        runner = runner_for(port.app, idle_seconds=port.idle_seconds)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        if port.layer is None:
            await web.SockSite(runner, sock, ssl_context=port.tls, backlog=ACCEPT_AT_ONCE).start()
            sock.listen(BACKLOG)  # asyncio has one figure for both
        else:
            await _LayeredSite(runner, sock, port.layer).start()


def runner_for(
    app: web.Application | Handler,
    *,
    idle_seconds: float = KEEP_ALIVE_SECONDS,
    drain_seconds: float = DRAIN_SECONDS,
) -> web.BaseRunner:
    """The HTTP server around an application, or around the device port's one handler."""
    options: dict[str, Any] = {
        "access_log": None,  # our own line is built once, with what matters in it
        "keepalive_timeout": idle_seconds,
        "lingering_time": LINGER_SECONDS,
        # Nobody who speaks to us compresses, and inflating a body, even one that is thrown away,
        # costs a thousand times what sending it did.
        "auto_decompress": False,
    }
    # aiohttp waits that long twice: for handlers, then for them without the rest of their request's body.
    ending: dict[str, Any] = {"shutdown_timeout": drain_seconds / 2, "handle_signals": False}
    if isinstance(app, web.Application):
        # An operator who closes a browser does not undo half an import.
        return web.AppRunner(app, handler_cancellation=False, **options, **ending)
    options |= {"access_log": logging.getLogger(__name__), "access_log_class": _Telling}
    # A device that leaves, or is cut, takes its handler with it.
    return web.ServerRunner(web.Server(app, handler_cancellation=True, **options), **ending)


@runtime_checkable
class Between(Protocol):
    """A protocol that stands between a transport and aiohttp's."""

    def returned(self, http: web.BaseRequest, status: int, /) -> None:
        """A request was answered, wholly."""
        ...


class _Telling(AbstractAccessLogger):
    """Logs nothing: this is where aiohttp says that it is done with a request."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        transport = request.transport
        protocol: object = None if transport is None else transport.get_protocol()
        if isinstance(protocol, Between):
            protocol.returned(request, response.status)


class _LayeredSite(web.BaseSite):
    """aiohttp's server behind a transport layer of our own."""

    def __init__(self, runner: web.BaseRunner, sock: socket.socket, layer: Layer) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._sock = sock
        self._layer = layer

    @property
    def name(self) -> str:
        host, port = self._sock.getsockname()[:2]
        return f"https://{host}:{port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._layer(server), sock=self._sock, backlog=ACCEPT_AT_ONCE
        )
        self._sock.listen(self._backlog)  # asyncio has one figure for both
