"""A connection that may come from a balancer, until it is known whose it is.

Guarantees: from a listed balancer a PROXY v2 header is required, whole within the handshake's time
limit; until it is here the connection takes one of a few places of their own (`TlsLimits.max_unnamed`), so
that a full listener still learns who comes, and who makes room; without one the connection is closed, and the reason counted and logged. From anybody
else a header is never read: its bytes fail the TLS handshake. A balancer that connects and
says nothing, or speaks for itself and goes, is looking whether we are there: no failure.
"""

import asyncio
from typing import cast

from facade.serving.identity.handshake import HandshakeReason
from facade.serving.identity.listener import Listener, peer_name
from facade.serving.identity.proxy_header import HeaderProblem, ProxyHeader, parse
from facade.serving.identity.tls_transport import TlsServerProtocol


class ProxiedProtocol(asyncio.BufferedProtocol):
    """Stands before `TlsServerProtocol` where balancers are listed."""

    __slots__ = ("_data", "_listener", "_over", "_raw", "_timer")

    _raw: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._data = bytearray()
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = raw = cast("asyncio.Transport", transport)
        listener = self._listener
        name = raw.get_extra_info("peername")
        if not name or not listener.is_balancer(name[0]):
            self._over = True
            tls = TlsServerProtocol(listener)
            raw.set_protocol(tls)
            tls.connection_made(raw)
            return
        if listener.has_no_room:
            self._over = True
            self._tell(HandshakeReason.OVERLOADED)
            raw.abort()
            return
        listener.transports.add(raw)
        listener.unnamed.add(raw)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            listener.limits.handshake_seconds, self._refuse, HandshakeReason.PROXY_TIMEOUT
        )

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.received

    def buffer_updated(self, nbytes: int) -> None:
        if self._over:
            return
        self._data += self._listener.received[:nbytes]
        try:
            header = parse(self._data)
        except HeaderProblem as problem:
            self._refuse(problem.reason)
        else:
            if header is not None:
                self._go_on(header)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self._end()
            if self._data:
                self._tell(HandshakeReason.PROXY_MALFORMED)
        self._listener.transports.discard(self._raw)

    def _go_on(self, header: ProxyHeader) -> None:
        """The header is here: what follows it is TLS."""
        self._end()
        listener, raw = self._listener, self._raw
        rest = memoryview(self._data)[header.length :]
        tls = TlsServerProtocol(listener, header.source, own_words=header.local)
        listener.transports.discard(raw)  # it is counted anew, as the client's
        raw.set_protocol(tls)
        tls.connection_made(raw)
        if rest:
            listener.received[: len(rest)] = rest
            tls.buffer_updated(len(rest))

    def _refuse(self, reason: HandshakeReason) -> None:
        if self._over:
            return
        self._end()
        self._tell(reason)
        self._raw.abort()

    def _tell(self, reason: HandshakeReason) -> None:
        self._listener.hooks.handshake_failed(
            peer_name(self._raw.get_extra_info("peername")), reason, None
        )

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()
        self._listener.unnamed.discard(self._raw)
