"""The device port: one handler for every request, one place where errors become answers.

Guarantees: every request gets an answer of interface.md's table, whatever it says; an error that
nobody foresaw is logged with its traceback and answered with the request id, nothing else. No
router, no middleware: a blob's way from socket to store is the shortest there is.
Runs under `identity.tls_transport`, with `handler_cancellation` on, so that a device which leaves
(or is cut) takes its handler with it. Whoever wires it runs `guard`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from aiohttp import web

from facade.clock import Clock
from facade.errors import FacadeError
from facade.observability.access import AccessLog
from facade.observability.logs import begin_request, request_ids
from facade.observability.metrics import Metrics
from facade.oci.host import RegistryHost
from facade.serving.api.answers import refusal, unforeseen
from facade.serving.api.exchange import LEFT_STATUS, Bookkeeper, Books, Exchange
from facade.serving.api.lane import Lanes, Server
from facade.serving.api.peer import Authorities, Peers
from facade.serving.api.routes import MetadataFiles, Routes
from facade.serving.api.shortcut import Shortcut
from facade.serving.api.streaming import Sender
from facade.serving.api.traced import Handle, RequestTracer, TracedBooks
from facade.serving.api.understood import Understood
from facade.serving.identity.stream import TlsTransport
from facade.serving.pulls.guard import StreamGuard
from facade.serving.pulls.reports import Reports
from facade.serving.pulls.service import PullService
from facade.wings import ControlPort

log = structlog.get_logger(__name__)


def device_app(
    *,
    pulls: PullService,
    authorities: Authorities,
    metadata: MetadataFiles,
    control: ControlPort,
    guard: StreamGuard,
    reports: Reports,
    metrics: Metrics,
    access: AccessLog,
    clock: Clock,
    default_registry: RegistryHost,
    deny_list_max_age: float,
    idle_seconds: float,
    tracer: RequestTracer | None = None,
) -> "DeviceApp":
    """What answers every request.

    Arguments:
        deny_list_max_age: seconds without word from the control side until devices are refused.
        idle_seconds: how long the HTTP server keeps a connection without a request.
        tracer: wraps the handler; None costs nothing.
    """
    peers = Peers(
        authorities=authorities,
        control=control,
        clock=clock,
        deny_list_max_age=deny_list_max_age,
    )
    sender = Sender(pulls=pulls, peers=peers, guard=guard, clock=clock)
    routes = Routes(
        pulls=pulls,
        peers=peers,
        sender=sender,
        metadata=metadata,
        default_registry=default_registry,
    )
    books = Bookkeeper(metrics, reports, access, clock)
    ids = request_ids()
    if tracer is not None:
        port = DevicePort(routes, TracedBooks(books, tracer), clock, ids)
        return DeviceApp(tracer.around(port.handle))
    understood = Understood(routes.read)
    shortcut = Shortcut(
        understood=understood,
        pulls=pulls,
        peers=peers,
        sender=sender,
        books=books,
        clock=clock,
        ids=ids,
    )
    lanes = Lanes(shortcut=shortcut, understood=understood, idle_seconds=idle_seconds)
    return DeviceApp(DevicePort(routes, books, clock, ids).handle, lanes)


@dataclass(frozen=True, slots=True)
class DeviceApp:
    """The device port's application.

    Arguments:
        handle: answers any request.
        lanes: the short way; None = every request goes the long one.
    """

    handle: Handle
    lanes: Lanes | None = None

    def before(self, server: Server) -> Server:
        """What stands between TLS and the HTTP server."""
        return server if self.lanes is None else self.lanes.before(server)

    def close(self) -> None:
        """End the connections that the HTTP server knows nothing of, each with what is being sent."""
        if self.lanes is not None:
            self.lanes.close()

    async def finish(self, seconds: float) -> None:
        """Return when these have ended; who takes longer is cut."""
        if self.lanes is not None:
            await self.lanes.finish(seconds)


class DevicePort:
    """Turns a request into an answer, come what may."""

    def __init__(self, routes: Routes, books: Books, clock: Clock, ids: Iterator[str]) -> None:
        self._routes = routes
        self._books = books
        self._clock = clock
        self._ids = ids

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """The one handler."""
        transport = http.transport
        if isinstance(transport, TlsTransport):
            transport.request_read()
        exchange = Exchange(http, next(self._ids), self._clock.monotonic())
        begin_request(exchange.id)
        try:
            response = await self._answer(exchange)
            exchange.status = response.status
            return response
        finally:
            self._books.finished(exchange)

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        try:
            handler = self._routes.find(exchange)
            return await handler(exchange)
        except FacadeError as error:
            exchange.error = error
        except ConnectionError:
            # The device has left. Whatever is given back here, the server finds that out too.
            return exchange.response or web.Response(status=LEFT_STATUS)
        except Exception:
            log.exception("request_failed", path=exchange.http.path, method=exchange.http.method)
            exchange.error = unforeseen()
        if exchange.response is not None:  # the head is out: no second answer can follow it
            if exchange.http.transport is not None:
                exchange.http.transport.abort()
            return exchange.response
        return refusal(exchange, exchange.error)
