"""TLS for a listener: our own thin layer between a plain asyncio transport and aiohttp.

    socket ⇄ plain transport ⇄ TlsServerProtocol, then TlsConnection ⇄ TlsTransport ⇄ aiohttp

Guarantees:
- The alert of a failed handshake reaches the client before the close, which neither asyncio's
  nor uvloop's own TLS sees to (`listener.Farewell`).
- The application's protocol is made after the handshake; a client that does not complete one
  within its time limit costs a socket and little else.
- Every connection asks for the current context: reload is an assignment.
Does not guarantee anything about the certificate beyond what the context demanded.

Works on asyncio and uvloop: public transport and protocol interfaces only.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import cast

from facade.serving.identity.connection import TlsConnection
from facade.serving.identity.handshake import (
    HandshakeReason,
    NullHooks,
    PeerCertificate,
    TlsHooks,
    reason_for,
)
from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.listener import Farewell, Listener

__all__ = [
    "TlsHooks",
    "TlsLimits",
    "TlsProtocolFactory",
    "TlsServerProtocol",
    "tls_protocol_factory",
]

_SPEAK_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks HTTPS with client certificates, not plain HTTP.\n"
)


class TlsServerProtocol(asyncio.BufferedProtocol):
    """One connection until its handshake is over, one way or the other."""

    __slots__ = ("_incoming", "_listener", "_outgoing", "_over", "_raw", "_timer", "_tls")

    _raw: asyncio.Transport
    _tls: ssl.SSLObject
    _timer: asyncio.TimerHandle

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is an asyncio.Transport in all but its base class.
        self._raw = raw = cast("asyncio.Transport", transport)
        listener = self._listener
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(listener.limits.handshake_seconds, self._expired)
        if len(listener.transports) >= listener.limits.max_connections:
            self._end()
            listener.hooks.handshake_failed(_peer(raw), HandshakeReason.OVERLOADED, None)
            raw.abort()
            return
        listener.transports.add(raw)
        try:
            context = listener.context()
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        except BaseException:
            raw.abort()
            raise

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.received

    def buffer_updated(self, nbytes: int) -> None:
        if self._over:
            return
        self._incoming.write(self._listener.received[:nbytes])
        watch = self._listener.watch
        watch.forget()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            if self._outgoing.pending:
                self._raw.write(self._outgoing.read())
        except ssl.SSLError as error:
            alert = self._outgoing.read()
            last_words = _SPEAK_TLS if error.reason == "HTTP_REQUEST" else alert
            self._fail(reason_for(error), watch.seen(), last_words)
        else:
            self._succeed()

    def eof_received(self) -> bool:
        self._fail(HandshakeReason.CLIENT_CLOSED)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self._end()
            peer = _peer(self._raw)
            self._listener.hooks.handshake_failed(peer, HandshakeReason.CLIENT_CLOSED, None)
        self._listener.transports.discard(self._raw)

    def _succeed(self) -> None:
        listener, raw, tls = self._listener, self._raw, self._tls
        der = tls.getpeercert(binary_form=True) or b""
        if listener.clients[der] >= listener.limits.max_per_certificate:
            self._fail(HandshakeReason.OVERLOADED, listener.watch.seen())
            return
        self._end()
        tls.context = listener.watch.quiet
        if self._outgoing.pending:
            raw.write(self._outgoing.read())
        elif not self._incoming.pending:
            _acknowledge(raw)
        connection = TlsConnection(listener, raw, tls, self._incoming, self._outgoing, der)
        raw.set_protocol(connection)
        listener.hooks.handshake_done(_peer(raw), der)
        connection.start()

    def _fail(
        self,
        reason: HandshakeReason,
        certificate: PeerCertificate | None = None,
        last_words: bytes = b"",
    ) -> None:
        if self._over:
            return
        self._end()
        self._listener.hooks.handshake_failed(_peer(self._raw), reason, certificate)
        Farewell.say(self._listener, self._raw, last_words)

    def _expired(self) -> None:
        self._fail(HandshakeReason.TIMEOUT)

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()


class TlsProtocolFactory:
    """Makes a protocol per connection, for `loop.create_server(…, ssl=None)`."""

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext],
        app_factory: Callable[[], asyncio.Protocol],
        *,
        hooks: TlsHooks,
        limits: TlsLimits,
    ) -> None:
        self._source = context
        self._observed: ssl.SSLContext | None = None
        self._listener = Listener(self._context, app_factory, hooks, limits)

    def __call__(self) -> TlsServerProtocol:
        return TlsServerProtocol(self._listener)

    @property
    def connections(self) -> int:
        """How many are open just now, those in their handshake and farewell included."""
        return len(self._listener.transports)

    def abort(self) -> None:
        """Drop every connection that is still there: the last step of a shutdown."""
        for transport in tuple(self._listener.transports):
            transport.abort()

    def _context(self) -> ssl.SSLContext:
        context = self._source()
        if context is not self._observed:
            self._listener.watch.observe(context)
            self._observed = context
        return context


def tls_protocol_factory(
    context: Callable[[], ssl.SSLContext],
    app_factory: Callable[[], asyncio.Protocol],
    *,
    hooks: TlsHooks | None = None,
    limits: TlsLimits | None = None,
) -> TlsProtocolFactory:
    """A protocol factory for `loop.create_server(…, ssl=None)`.

    Arguments:
        context: gives the current server context, for each new connection.
        app_factory: makes the protocol behind TLS (an `aiohttp.web.Server`).
        hooks: told of every handshake's outcome.
    """
    return TlsProtocolFactory(
        context, app_factory, hooks=hooks or NullHooks(), limits=limits or TlsLimits()
    )


def _acknowledge(raw: asyncio.Transport) -> None:
    """Send the TCP acknowledgement of the client's last flight now.

    Without session tickets nothing of ours follows it, so the kernel would delay it by 40 ms;
    a client with Nagle's algorithm on sends its request only after that.
    """
    sock = raw.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _peer(raw: asyncio.Transport) -> str:
    """The client's `address:port`."""
    name = raw.get_extra_info("peername")
    if not name:
        return "unknown"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
