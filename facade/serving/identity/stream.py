"""The transport that aiohttp sees behind TLS.

Guarantees: the public interface of `asyncio.Transport`. `get_extra_info` also answers
`peercert_der` (the client's verified certificate, bytes), `ssl_object`, `sslcontext` and
`cipher`, and `peername` with what a listed balancer says; everything else comes from the plain
transport. Through a `lease` that has ended nothing can be done to the connection. Does not half-close: an HTTP
server never does, and TLS 1.3's half-close is not worth a state of its own here.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from facade.serving.identity.limits import Watchdog
from facade.serving.identity.openssl import TlsSession

_JOIN_BELOW_BYTES = 16 * 1024
"""Pieces that fit one TLS record together are sent as one."""


class Connection(Protocol):
    """What the transport needs of its connection (`connection.TlsConnection`)."""

    der: bytes
    app: asyncio.Protocol | None
    tls: TlsSession
    peername: tuple[str, int] | None
    watchdog: Watchdog

    @property
    def closing(self) -> bool: ...
    @property
    def more(self) -> bool: ...
    @property
    def read_paused(self) -> bool: ...
    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class TlsTransport(asyncio.Transport):
    """Plaintext in, plaintext out."""

    __slots__ = ("_connection", "_ended", "_raw")

    def __init__(self, connection: Connection, raw: asyncio.Transport) -> None:
        super().__init__()
        self._connection = connection
        self._raw = raw
        self._ended = False

    def lease(self) -> "TlsTransport":
        """Another on the same connection, for somebody who may have to give it up."""
        return TlsTransport(self._connection, self._raw)

    def end(self) -> None:
        """Whoever has this lease has it no more: for them the connection is closed."""
        self._ended = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        tls = self._connection.tls
        if name == "peercert_der":
            return self._connection.der
        if name == "ssl_object":
            return tls
        if name == "sslcontext":
            return tls.context
        if name == "cipher":
            return tls.cipher()
        if name == "peername" and self._connection.peername is not None:
            return self._connection.peername
        return self._raw.get_extra_info(name, default)

    def request_read(self) -> None:
        """The application has a whole request: the limit on trickling ones is met."""
        self._connection.watchdog.asked = True

    @property
    def more(self) -> bool:
        """Whether the client sent more than what the application was given so far."""
        return self._connection.more

    def answered(self) -> None:
        """A request was answered, and the HTTP server knows nothing of it: the limit begins anew."""
        self._connection.watchdog.begin()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._ended:
            self._connection.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        if self._ended:
            return
        pieces = list(list_of_data)
        if sum(map(len, pieces)) <= _JOIN_BELOW_BYTES:
            self._connection.write(b"".join(pieces))
            return
        for piece in pieces:
            self._connection.write(piece)

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError("TLS here does not half-close; close() sends close_notify.")

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        return not (self._connection.read_paused or self.is_closing())

    def pause_reading(self) -> None:
        if not self._ended:
            self._connection.pause_reading()

    def resume_reading(self) -> None:
        if not self._ended:
            self._connection.resume_reading()

    def is_closing(self) -> bool:
        return self._ended or self._connection.closing or self._raw.is_closing()

    def close(self) -> None:
        if not self._ended:
            self._connection.close()

    def abort(self) -> None:
        if not self._ended:
            self._connection.abort()

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol = self._connection.app
        assert protocol is not None
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._connection.app = protocol
