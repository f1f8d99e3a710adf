"""TLS for a listener: our own thin layer between a plain asyncio transport and aiohttp.

    socket ⇄ plain transport ⇄ TlsServerProtocol (MemoryBIO, SSLObject) ⇄ TlsTransport ⇄ aiohttp

Guarantees:
- The alert of a failed handshake reaches the client before the close, as asyncio's and uvloop's
  own TLS do not see to: it is flushed, then our side is half-closed and the client's remaining
  bytes are discarded for a moment, since closing over unread bytes would reset the connection
  and take the alert with it.
- The application's protocol is made after the handshake; a client that does not complete one
  within its time limit costs a socket and little else.
- Every connection asks for the current context: reload is an assignment.
- Flow control goes both ways: what the client does not take pauses the application; what the
  application does not take pauses the socket; a client that makes us write (KeyUpdate) and does
  not read is no longer read from.
- Nothing is buffered here beyond one received block and one slice on its way out.
Does not guarantee anything about the certificate beyond what the context demanded.

Works on asyncio and uvloop: it uses the public transport and protocol interfaces only.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import cast

from facade.serving.identity.handshake import (
    CertificateWatch,
    ContextSource,
    HandshakeReason,
    NullHooks,
    PeerCertificate,
    TlsHooks,
    reason_for,
)
from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.stream import TlsTransport

__all__ = ["TlsHooks", "TlsLimits", "TlsServerProtocol", "tls_protocol_factory"]

_RECEIVE_BYTES = 64 * 1024
"""One receive buffer, shared by all connections of a listener: it is consumed at once."""
_RECORD_BYTES = 16 * 1024
"""Plaintext of the largest TLS record (RFC 8446, 5.1): what one SSL read can give."""
_SLICE_BYTES = 64 * 1024
"""Plaintext encrypted before the ciphertext moves on. OpenSSL's memory BIO never shrinks, so
this bounds what a connection keeps after a big write; smaller slices cost CPU."""
_MAX_LINGER_BYTES = 256 * 1024
_SPEAK_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"This port speaks HTTPS with client certificates, not plain HTTP.\n"
)


class TlsProtocolFactory:
    """Makes a protocol per connection, for `loop.create_server`, and keeps what they share."""

    def __init__(
        self,
        context: ContextSource,
        app_factory: Callable[[], asyncio.Protocol],
        *,
        hooks: TlsHooks,
        limits: TlsLimits,
    ) -> None:
        self.app_factory = app_factory
        self.hooks = hooks
        self.limits = limits
        self.watch = CertificateWatch()
        self.received = memoryview(bytearray(_RECEIVE_BYTES))
        self.connections: set[TlsServerProtocol] = set()
        self._source = context
        self._observed: ssl.SSLContext | None = None

    def __call__(self) -> "TlsServerProtocol":
        return TlsServerProtocol(self)

    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        context = self._source()
        if context is not self._observed:
            self.watch.observe(context)
            self._observed = context
        return context

    def abort(self) -> None:
        """Drop every connection that is still there: the last step of a shutdown."""
        for connection in tuple(self.connections):
            connection.abort()


def tls_protocol_factory(
    context: ContextSource,
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


class TlsServerProtocol(asyncio.BufferedProtocol):
    """One connection: handshake, then records both ways, then the close."""

    __slots__ = (
        "_app", "_closing", "_failed", "_held", "_incoming", "_last", "_linger_left", "_loop",
        "_mark", "_outgoing", "_owed", "_peer_done", "_raw", "_read_paused", "_shared", "_timer",
        "_tls", "_write_paused", "_written", "der",
    )  # fmt: skip

    def __init__(self, shared: TlsProtocolFactory) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._app: asyncio.Protocol | None = None  # set when the handshake is done
        self._raw: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False  # the handshake did, and the client may read why
        self._closing = False
        self._peer_done = False  # close_notify or FIN seen
        self._read_paused = False  # by the application
        self._write_paused = False  # by the plain transport
        self._held = False  # not reading from a client that does not read
        self._owed = False  # the client spoke last
        self._last = 0.0
        self._linger_left = _MAX_LINGER_BYTES
        self._written = 0
        self._mark = (0, 0)  # (bytes sent, bytes buffered) at the last check
        self.der = b""

    # The plain transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        self._raw = raw
        shared = self._shared
        if len(shared.connections) >= shared.limits.max_connections:
            self._failed = True
            shared.hooks.handshake_failed(self.peer, HandshakeReason.OVERLOADED, None)
            raw.abort()
            return
        shared.connections.add(self)
        self._tls = shared.context().wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._arm(shared.limits.handshake_seconds, self._handshake_expired)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.received

    def buffer_updated(self, nbytes: int) -> None:
        if self._failed or self._closing:
            self._linger_left -= nbytes
            if self._linger_left < 0:
                self.abort()
            return
        self._incoming.write(self._shared.received[:nbytes])
        if self._app is None:
            self._handshake()
        else:
            self._last = self._loop.time()
            self._deliver()

    def eof_received(self) -> bool:
        if self._app is None:
            self._fail(HandshakeReason.CLIENT_CLOSED)
            return False
        self._peer_closed()
        return not self._closing

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._held:
            self._held = False
            self._read_on()
        if self._app is not None:
            self._app.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(HandshakeReason.CLIENT_CLOSED)
        self._disarm()
        self._shared.connections.discard(self)
        self._closing = True
        app, self._app = self._app, None
        self._tls = None
        if app is not None:
            app.connection_lost(exc)

    # Handshake.

    def _handshake(self) -> None:
        assert self._tls is not None
        watch = self._shared.watch
        watch.forget()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            plain_http = error.reason == "HTTP_REQUEST"
            self._fail(reason_for(error), watch.seen(), _SPEAK_TLS if plain_http else b"")
        else:
            self._established(self._tls)

    def _established(self, tls: ssl.SSLObject) -> None:
        assert self._raw is not None
        self.der = tls.getpeercert(binary_form=True) or b""
        tls.context = self._shared.watch.quiet
        self._flush()
        self._last = self._loop.time()
        self._arm(self._interval, self._check)
        self._shared.hooks.handshake_done(self.peer, self.der)
        self._app = self._shared.app_factory()
        self._app.connection_made(TlsTransport(self, self._raw))
        if self._write_paused:
            self._app.pause_writing()
        self._deliver()

    def _fail(
        self,
        reason: HandshakeReason,
        certificate: PeerCertificate | None = None,
        last_words: bytes = b"",
    ) -> None:
        """End a handshake that cannot succeed; nothing when it already ended, well or not."""
        if self._failed or self._app is not None or self._closing:
            return
        self._failed = True
        self._shared.hooks.handshake_failed(self.peer, reason, certificate)
        self._hang_up(last_words)

    def _hang_up(self, last_words: bytes = b"") -> None:
        """Send the alert, say that no more comes, and let the client read it."""
        raw = self._raw
        assert raw is not None
        self._flush()
        if raw.is_closing():
            return
        if last_words:
            raw.write(last_words)
        if raw.can_write_eof():
            raw.write_eof()
        self._arm(self._shared.limits.linger_seconds, raw.abort)
        raw.resume_reading()

    def _handshake_expired(self) -> None:
        self._fail(HandshakeReason.TIMEOUT)

    # Records in.

    def _deliver(self) -> None:
        """Give the application what has come, until it wants no more or none is left."""
        tls, incoming = self._tls, self._incoming
        while tls is not None and not (self._read_paused or self._closing or self._peer_done):
            if not (incoming.pending or tls.pending()):
                break
            try:
                data = tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                break  # part of a record
            except ssl.SSLError:
                self._break_off()
                return
            if not data:
                self._peer_closed()
            elif self._app is not None:
                self._owed = True
                self._app.data_received(data)
        self._flush()  # a read may have answered a KeyUpdate (RFC 8446, 4.6.3)
        if self._write_paused and not self._closing:
            self._held = True
            self._stop_reading()

    def _break_off(self) -> None:
        """The client broke the protocol: tell it with the alert, then close."""
        self._closing = True
        self._hang_up()

    def _peer_closed(self) -> None:
        """The client will send nothing more; the application decides whether it still writes."""
        if self._peer_done or self._app is None:
            return
        self._peer_done = True
        if not self._app.eof_received():
            self.close()

    def _stop_reading(self) -> None:
        if self._raw is not None and not self._raw.is_closing():
            self._raw.pause_reading()

    def _read_on(self) -> None:
        """Take up reading: first what is here already, then the socket."""
        if self._wanted:
            self._deliver()
        raw = self._raw
        if self._wanted and raw is not None and not raw.is_closing():
            raw.resume_reading()

    @property
    def _wanted(self) -> bool:
        return not (self._read_paused or self._held or self._closing)

    # Records out.

    def _flush(self) -> None:
        if self._outgoing.pending:
            data = self._outgoing.read()
            assert self._raw is not None
            if not self._raw.is_closing():
                self._written += len(data)
                self._raw.write(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send `data`; dropped when the connection is closing."""
        tls = self._tls
        if tls is None or self._closing or not data:
            return
        self._owed = False
        self._last = self._loop.time()
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[tls.write(view[:_SLICE_BYTES]) :]
                self._flush()
        except ssl.SSLError:
            self.abort()

    # The end.

    def close(self) -> None:
        """Send what is buffered, close_notify (RFC 8446, 6.1), then close."""
        if self._closing or self._tls is None or self._raw is None:
            return
        self._closing = True
        # It sends ours and wants the client's, which nobody waits for.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._raw.close()

    def abort(self) -> None:
        """Drop the connection and what is buffered."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    # What TlsTransport asks.

    @property
    def closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS state, None when the connection is gone."""
        return self._tls

    @property
    def app(self) -> asyncio.Protocol | None:
        """The protocol behind TLS."""
        return self._app

    @app.setter
    def app(self, protocol: asyncio.Protocol | None) -> None:
        self._app = protocol

    @property
    def peer(self) -> str:
        """The client's `address:port`."""
        name = self._raw.get_extra_info("peername") if self._raw is not None else None
        if not name:
            return "unknown"
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    @property
    def read_paused(self) -> bool:
        """Whether the application wants nothing more for now."""
        return self._read_paused

    def pause_reading(self) -> None:
        """The application wants nothing more for now."""
        self._read_paused = True
        self._stop_reading()

    def resume_reading(self) -> None:
        """It wants more: delivered from the loop, not from inside its call."""
        if self._read_paused:
            self._read_paused = False
            self._loop.call_soon(self._read_on)

    # Time.

    @property
    def _interval(self) -> float:
        limits = self._shared.limits
        return min(limits.idle_seconds, limits.stall_seconds)

    def _check(self) -> None:
        """Cut a client that is silent for too long, or takes its bytes too slowly."""
        raw, limits = self._raw, self._shared.limits
        assert raw is not None
        buffered = raw.get_write_buffer_size()
        sent = self._written - buffered
        taken, had = sent - self._mark[0], self._mark[1]
        self._mark = (sent, buffered)
        wait = self._interval
        if had and taken < min(had, limits.min_bytes_per_second * wait):
            self.abort()
            return
        if not buffered:
            limit = limits.answer_seconds if self._owed else limits.idle_seconds
            left = self._last + limit - self._loop.time()
            if left <= 0:
                self.close()
                return
            wait = min(wait, left)
        self._arm(wait, self._check)

    def _arm(self, seconds: float, action: Callable[[], object]) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, action)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
