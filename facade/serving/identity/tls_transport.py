"""TLS for a listener: our own thin layer between a plain asyncio transport and aiohttp.

    socket ⇄ plain transport ⇄ TlsServerProtocol, then TlsConnection ⇄ TlsTransport ⇄ aiohttp

Guarantees:
- The alert of a failed handshake reaches the client before the close, which neither asyncio's
  nor uvloop's own TLS sees to (`listener.Farewell`).
- The application's protocol is made after the handshake; a client that does not complete one
  within its time limit costs a socket and little else.
Does not guarantee anything about the certificate beyond what the context demanded.

Works on asyncio and uvloop: public transport and protocol interfaces only.
"""

import asyncio
import contextlib
import socket
from typing import cast

from facade.serving.identity.connection import TlsConnection
from facade.serving.identity.half_open import source
from facade.serving.identity.handshake import (
    HandshakeReason,
    PeerCertificate,
    presented,
    reason_for,
)
from facade.serving.identity.listener import Farewell, Listener, peer_name
from facade.serving.identity.openssl import TlsError, TlsSession

_SPEAK_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks HTTPS with client certificates, not plain HTTP.\n"
)


class TlsServerProtocol(asyncio.BufferedProtocol):
    """One connection until its handshake is over, one way or the other.

    Arguments:
        proxied: the client's address as a balancer tells it; None = the socket's.
        own_words: the balancer speaks for itself: when it goes without a word, it only looked
            whether we are there.
    """

    __slots__ = (
        "_address",
        "_listener",
        "_over",
        "_peername",
        "_proxied",
        "_quiet",
        "_raw",
        "_timer",
        "_tls",
    )

    _raw: asyncio.Transport
    _tls: TlsSession
    _timer: asyncio.TimerHandle

    def __init__(
        self,
        listener: Listener,
        proxied: tuple[str, int] | None = None,
        *,
        own_words: bool = False,
    ) -> None:
        self._listener = listener
        self._proxied = proxied
        self._quiet = own_words
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is an asyncio.Transport in all but its base class.
        self._raw = raw = cast("asyncio.Transport", transport)
        listener = self._listener
        loop = asyncio.get_running_loop()
        self._peername = self._proxied or raw.get_extra_info("peername")
        self._address = source(self._peername[0]) if self._peername else "unknown"
        self._timer = loop.call_later(listener.limits.handshake_seconds, self._expired)
        if not self._admitted():
            self._end()
            listener.hooks.handshake_failed(
                peer_name(self._peername), HandshakeReason.OVERLOADED, None
            )
            raw.abort()
            return
        listener.half_open.begin(self._address, self)
        listener.transports.add(raw)
        try:
            self._tls = listener.context().session()
        except BaseException:
            raw.abort()
            raise

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.received

    def buffer_updated(self, nbytes: int) -> None:
        if self._over:
            return
        self._quiet = False
        tls = self._tls
        tls.receive(self._listener.received, nbytes)
        try:
            over = tls.handshake()
        except TlsError as error:
            last_words = _SPEAK_TLS if error.reason == "HTTP_REQUEST" else tls.outgoing()
            self._fail(reason_for(error), presented(tls.presented), last_words)
            return
        if over:
            self._succeed()
        elif (flight := tls.outgoing()) is not None:
            self._raw.write(flight)
        else:
            _acknowledge(self._raw)

    def eof_received(self) -> bool:
        if self._quiet:
            return False
        self._fail(HandshakeReason.CLIENT_CLOSED)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self._listener.transports.discard(self._raw)

    def give_up(self) -> None:
        """Make room for another (`half_open`)."""
        self._end()
        self._listener.hooks.handshake_failed(
            peer_name(self._peername), HandshakeReason.OVERLOADED, None
        )
        self._listener.transports.discard(self._raw)
        self._raw.abort()

    def _admitted(self) -> bool:
        listener = self._listener
        if not listener.half_open.admits(self._address):
            return False
        return not listener.is_full or listener.half_open.make_room(self._address)

    def _gone(self) -> None:
        """The client left in the middle."""
        if self._over:
            return
        self._end()
        if not self._quiet:
            peer = peer_name(self._peername)
            self._listener.hooks.handshake_failed(peer, HandshakeReason.CLIENT_CLOSED, None)

    def _succeed(self) -> None:
        listener, raw, tls = self._listener, self._raw, self._tls
        der = tls.certificate
        if listener.clients[der] >= listener.limits.max_per_certificate:
            self._fail(HandshakeReason.OVERLOADED, presented(der))
            return
        self._end()
        if not tls.received:
            _acknowledge(raw)
        connection = TlsConnection(listener, raw, tls, der, self._proxied)
        raw.set_protocol(connection)
        listener.hooks.handshake_done(peer_name(self._peername), der)
        connection.start()

    def _fail(
        self,
        reason: HandshakeReason,
        certificate: PeerCertificate | None = None,
        last_words: bytes | memoryview | None = None,
    ) -> None:
        if self._over:
            return
        self._end()
        self._listener.hooks.handshake_failed(peer_name(self._peername), reason, certificate)
        Farewell.say(self._listener, self._raw, last_words)

    def _expired(self) -> None:
        self._fail(HandshakeReason.TIMEOUT)

    def _end(self) -> None:
        self._over = True
        self._timer.cancel()
        self._listener.half_open.end(self._address, self)


def _acknowledge(raw: asyncio.Transport) -> None:
    """Send the TCP acknowledgement of what the client said now.

    Nothing of ours follows it at once (more of its flight has to come first; the session tickets go out with
    the first answer), so the kernel would delay it by 40 ms; a client with Nagle's algorithm on, as Java's,
    sends the rest of its flight, or its request, only after that.
    """
    sock = raw.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
