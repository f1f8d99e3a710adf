"""A TLS client with its insides open: blocking, over a plain socket that a test may misuse.

Guarantees: nothing reaches the network but what `send_raw`, `flush` or a method built on them sends,
and nothing is read from it but when asked to; so a test can stop between any two records, put
bytes of its own on the wire, or not read. Alerts come as `ssl.SSLError` whose `reason` names
them. Meant for threads (`asyncio.to_thread`), not for the event loop.
"""

import contextlib
import socket
import ssl
from types import TracebackType
from typing import Self

_TIMEOUT_SECONDS = 10.0


class TlsPeer:
    """Connects on construction; the handshake is a call of its own.

    Arguments:
        address: host and port.
        receive_bytes: kernel receive buffer (SO_RCVBUF), to be a slow reader with.
    """

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        *,
        receive_bytes: int | None = None,
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(_TIMEOUT_SECONDS)
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(address)
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def handshake(self, *, with_data: bytes = b"", cut: int = 0) -> None:
        """Complete the handshake as the client sees it; `with_data` goes with its last flight, of which
        the first `cut` bytes are sent by themselves.

        In TLS 1.3 the server's verdict on our certificate comes after that: with the next read.
        """
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            else:
                break
        if with_data:
            self.tls.write(with_data)
        if cut:
            self.send_raw(self.outgoing.read(cut))
        self.flush()

    def flush(self) -> None:
        """Send what TLS has ready."""
        if self.outgoing.pending:
            self.socket.sendall(self.outgoing.read())

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self.tls.write(data)
        self.flush()

    def send_raw(self, data: bytes) -> None:
        """Put bytes on the wire as they are."""
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """The next plaintext; b"" after close_notify.

        Raises ssl.SSLError for an alert, EOFError when the connection ends without
        close_notify, ConnectionResetError when it is reset.
        """
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    def receive_all(self) -> bytes:
        """Everything until close_notify."""
        return b"".join(iter(self.receive, b""))

    def receive_exactly(self, count: int) -> bytes:
        """`count` bytes; EOFError when fewer come."""
        data = bytearray()
        while len(data) < count:
            piece = self.receive()
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def say_goodbye(self) -> None:
        """Send close_notify and go on reading."""
        # It asks for the other side's close_notify, which comes when it comes.
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.incoming.write(data)
