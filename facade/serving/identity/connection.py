"""An established TLS connection: records in, records out, and the close.

Guarantees: flow control both ways (what the client does not take pauses the application; what the
application does not take pauses the socket; a client that makes us write, by KeyUpdates,
and does not read is no longer read from). Nothing is buffered here beyond one received
block and one slice on its way out. A protocol violation is answered with its alert; a close over what the
client sent unasked does not cost it the end of its answer. Does not know who the client is.
"""

import asyncio
import socket
import struct
from functools import partial

from facade.serving.identity.limits import Verdict, Watchdog
from facade.serving.identity.listener import MAX_DISCARDED_BYTES, Farewell, Listener, half_close
from facade.serving.identity.openssl import TlsError, TlsSession
from facade.serving.identity.stream import TlsTransport

_SLICE_BYTES = 256 * 1024
"""Plaintext encrypted before the ciphertext moves on. It bounds what OpenSSL's memory BIO grows to; slices of
128 KiB cost a fifth more CPU a byte of a large cached blob, those of 512 KiB no less."""


_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""`struct linger` (socket(7)): on, for no time."""


class TlsConnection(asyncio.BufferedProtocol):
    """Stands between the plain transport `raw` and the application's protocol.

    Arguments:
        tls: the session after its handshake.
        der: the client's verified certificate.
        peername: the client's address where a balancer told it; None = the socket's.
    """

    __slots__ = (
        "_closing",
        "_held",
        "_listener",
        "_loop",
        "_peer_done",
        "_raw",
        "_read_paused",
        "_timer",
        "_unasked",
        "_write_paused",
        "_written",
        "app",
        "der",
        "peername",
        "tls",
        "watchdog",
    )

    def __init__(
        self,
        listener: Listener,
        raw: asyncio.Transport,
        tls: TlsSession,
        der: bytes,
        peername: tuple[str, int] | None = None,
    ) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._raw = raw
        self._closing = False
        self._peer_done = False  # close_notify or FIN seen
        self._read_paused = False  # by the application
        self._write_paused = False  # by the plain transport
        self._held = False  # not reading from a client that does not read
        self._written = 0
        self._unasked = 0  # bytes that came after the close
        self.watchdog = Watchdog(listener.limits, self._loop.time())
        self._timer = self._loop.call_later(listener.limits.interval, self._look)
        self.tls = tls
        self.der = der
        self.peername = peername
        self.app: asyncio.Protocol | None = None

    def start(self) -> None:
        """Give the application its transport and what came behind the handshake."""
        self.app = self._listener.app_factory()
        self._listener.clients[self.der] += 1
        self.app.connection_made(TlsTransport(self, self._raw))
        if self.more:  # otherwise the session tickets wait for the first answer
            self._deliver()

    # What the plain transport calls.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.received

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            self._unasked += nbytes
            if self._unasked > MAX_DISCARDED_BYTES:
                self._raw.close()
            return
        self.tls.receive(self._listener.received, nbytes)
        self._deliver()

    def eof_received(self) -> bool:
        self._peer_closed()
        return not self._closing

    def pause_writing(self) -> None:
        self._write_paused = True
        if self.app is not None:
            self.app.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._held:
            self._held = False
            self._read_on()
        if self.app is not None:
            self.app.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._timer.cancel()
        self._listener.transports.discard(self._raw)
        self._leave(exc)

    def _leave(self, exc: Exception | None) -> None:
        app, self.app = self.app, None
        if app is not None:
            clients = self._listener.clients
            clients[self.der] -= 1
            if not clients[self.der]:
                del clients[self.der]
            app.connection_lost(exc)

    # Records in.

    def _deliver(self) -> None:
        """Give the application what has come, until it wants no more or none is left."""
        tls = self.tls
        while self.more and not (self._read_paused or self._closing or self._peer_done):
            try:
                data = tls.read()
            except TlsError as error:
                self._break_off(error)
                return
            if data is None:
                break  # part of a record
            if not data:
                self._peer_closed()
            elif self.app is not None:
                self.watchdog.last = self._loop.time()
                self.app.data_received(data)
        self._flush()  # a read may have answered a KeyUpdate (RFC 8446, 4.6.3)
        if self._write_paused and not self._closing:
            self._held = True
            self._raw.pause_reading()

    def _break_off(self, error: TlsError) -> None:
        """The client broke the protocol: it gets the alert, the application the error."""
        self._closing = True
        self._timer.cancel()
        Farewell.say(self._listener, self._raw, self.tls.outgoing())
        self._leave(error)

    def _peer_closed(self) -> None:
        """The client sends nothing more; the application decides whether it still writes."""
        if self._peer_done or self.app is None:
            return
        self._peer_done = True
        if not self.app.eof_received():
            self.close()

    def _read_on(self) -> None:
        """Take up reading: first what is here already, then the socket."""
        if self._wanted:
            self._deliver()
        if self._wanted and not self._raw.is_closing():
            self._raw.resume_reading()

    @property
    def _wanted(self) -> bool:
        return not (self._read_paused or self._held or self._closing)

    # Records out.

    def _flush(self) -> None:
        data = self.tls.outgoing()
        if data is not None and not self._raw.is_closing():
            self._written += len(data)
            self._raw.write(data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send `data`; dropped when the connection is closing."""
        if self._closing or not data:
            return
        self.watchdog.asked = True
        self.watchdog.last = self._loop.time()
        try:
            if isinstance(data, bytes) and len(data) <= _SLICE_BYTES:
                self.tls.write(data)
                self._flush()
                return
            view = memoryview(data).cast("B")
            while view:
                self.tls.write(view[:_SLICE_BYTES])
                view = view[_SLICE_BYTES:]
                self._flush()
        except TlsError:
            self.abort()

    # What the application's transport asks.

    @property
    def closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing

    @property
    def more(self) -> bool:
        """Whether bytes are here that the application was not given yet."""
        return bool(self.tls.received)

    @property
    def read_paused(self) -> bool:
        """Whether the application wants nothing more for now."""
        return self._read_paused

    def pause_reading(self) -> None:
        """The application wants nothing more for now."""
        self._read_paused = True
        if not (self._closing or self._raw.is_closing()):
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """It wants more: delivered from the loop, not from inside its call."""
        if self._read_paused:
            self._read_paused = False
            self._loop.call_soon(self._read_on)

    def close(self) -> None:
        """Send what is buffered, close_notify (RFC 8446, 6.1), then close."""
        if self._closing:
            return
        self._closing = True
        self.tls.close_notify()
        self._flush()
        if (self._read_paused or self._held) and not self._raw.is_closing():
            half_close(self._raw)
            self._linger()
        else:
            self._raw.close()

    def _linger(self, *, flushed: bool = False) -> None:
        """Discard what the client sent unasked, until it closes, or for a moment from when all is written.
        Closing over unread bytes would reset the connection, which costs the client what it has not
        read yet (RFC 9112, 9.6).
        """
        if flushed or self.app is None:
            self._raw.close()
            return
        again = partial(self._linger, flushed=not self._raw.get_write_buffer_size())
        self._loop.call_later(self._listener.limits.linger_seconds, again)

    def abort(self) -> None:
        """Drop the connection and what is buffered."""
        self._closing = True
        self._raw.abort()

    def _reset(self) -> None:
        """Drop what the kernel still holds as well: a client that takes nothing would have it keep
        megabytes for minutes after a plain close.
        """
        sock = self._raw.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()

    def _look(self) -> None:
        buffered = self._raw.get_write_buffer_size()
        sent = self._written - buffered
        verdict = self.watchdog.look(self._loop.time(), sent=sent, buffered=buffered)
        if verdict is Verdict.CUT:
            self._reset()
        elif verdict is Verdict.CLOSE and not self._closing:
            self.close()
        self._timer = self._loop.call_later(self._listener.limits.interval, self._look)
        self.tls.slim()
