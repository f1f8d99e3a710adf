"""A listener under our TLS transport, with hooks that remember and a protocol that does as told."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from facade.serving.identity.factory import TlsProtocolFactory, tls_protocol_factory
from facade.serving.identity.handshake import HandshakeReason, PeerCertificate
from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.openssl import TlsContext
from tests.support.pki import Authority, Leaf


def tls_context(server: Leaf, *device_cas: Authority) -> TlsContext:
    """The device port's, of what tests have in memory."""
    with tempfile.TemporaryDirectory() as folder:
        files = server.write(Path(folder))
        anchors = Path(folder, "anchors.pem")
        anchors.write_bytes(b"".join(ca.pem for ca in device_cas))
        return TlsContext(files.certificate, files.key, [anchors])


@dataclass
class RecordedHooks:
    """Implements `TlsHooks`."""

    done: list[tuple[str, bytes]] = field(default_factory=list)
    failed: list[tuple[HandshakeReason, PeerCertificate | None]] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)

    def handshake_done(self, peer: str, der: bytes) -> None:
        self.done.append((peer, der))

    def handshake_failed(
        self, peer: str, reason: HandshakeReason, certificate: PeerCertificate | None
    ) -> None:
        self.peers.append(peer)
        self.failed.append((reason, certificate))


class ScriptedProtocol(asyncio.Protocol):
    """Notes what happens to it.

    Arguments:
        on_data: called with the protocol and what came.
        keep_open: what `eof_received` answers.
    """

    def __init__(
        self,
        on_data: "Callable[[ScriptedProtocol, bytes], None] | None" = None,
        *,
        keep_open: bool = False,
    ) -> None:
        self._on_data = on_data
        self._keep_open = keep_open
        self.transport: asyncio.Transport | None = None
        self.received = bytearray()
        self.eof = False
        self.paused = False
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    @property
    def wire(self) -> asyncio.Transport:
        """The transport, which must be there."""
        assert self.transport is not None
        return self.transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self._on_data is not None:
            self._on_data(self, data)

    def eof_received(self) -> bool:
        self.eof = True
        return self._keep_open

    def pause_writing(self) -> None:
        assert not self.paused
        self.paused = True
        self.writable.clear()

    def resume_writing(self) -> None:
        assert self.paused
        self.paused = False
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@dataclass
class TlsListener:
    """A running one."""

    address: tuple[str, int]
    factory: TlsProtocolFactory
    hooks: RecordedHooks

    @property
    def port(self) -> int:
        return self.address[1]

    async def settled(self, connections: int = 0, seconds: float = 5.0) -> None:
        """Return when only so many connections are left. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while self.factory.connections != connections:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.005)


@asynccontextmanager
async def tls_listener(
    context: TlsContext | Callable[[], TlsContext],
    app_factory: Callable[[], asyncio.Protocol],
    limits: TlsLimits | None = None,
    *,
    balancers: tuple[str, ...] = (),
) -> AsyncIterator[TlsListener]:
    """Listen on 127.0.0.1 while the block runs; all its connections end with it."""
    hooks = RecordedHooks()
    source = (lambda: context) if isinstance(context, TlsContext) else context
    factory = tls_protocol_factory(
        source, app_factory, hooks=hooks, limits=limits, balancers=tuple(map(ip_network, balancers))
    )
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    listener = TlsListener(server.sockets[0].getsockname()[:2], factory, hooks)
    try:
        yield listener
    finally:
        server.close()
        factory.abort()
        await listener.settled()
        await server.wait_closed()
