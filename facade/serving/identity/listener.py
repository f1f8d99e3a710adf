"""What the connections of one listener share, and the last thing any of them does.

Guarantees: `Listener.transports` holds every connection that is not lost yet. `Farewell` leaves a
refused client time to read its alert: closing a socket over unread bytes resets the
connection, and a reset may overtake the alert (RFC 1122, 4.2.2.13).
"""

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from facade.serving.identity.half_open import HalfOpen, plain
from facade.serving.identity.handshake import TlsHooks
from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.openssl import TlsContext

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_RECEIVE_BYTES = 64 * 1024
MAX_DISCARDED_BYTES = 256 * 1024
"""What is read from a client, and thrown away, after the last word to it."""


def _receive_buffer() -> memoryview:
    return memoryview(bytearray(_RECEIVE_BYTES))


@dataclass(slots=True, eq=False)
class Listener:
    """Shared by the connections of one listener.

    Arguments:
        context: gives the TLS context for a new connection.
        app_factory: makes the protocol behind TLS.
        received: one receive buffer for all: what lands in it is consumed at once.
        transports: the plain transports that are open.
        unnamed: those of them whose balancer has not said for whom they come.
        clients: how many established connections each certificate (DER) has.
        half_open: the handshakes under way.
        balancers: from these a PROXY v2 header is required.
    """

    context: Callable[[], TlsContext]
    app_factory: Callable[[], asyncio.Protocol]
    hooks: TlsHooks
    limits: TlsLimits
    received: memoryview = field(default_factory=_receive_buffer)
    transports: set[asyncio.Transport] = field(default_factory=set)
    unnamed: set[asyncio.Transport] = field(default_factory=set)
    clients: Counter[bytes] = field(default_factory=Counter)
    balancers: tuple[Network, ...] = ()
    half_open: HalfOpen = field(init=False)

    def __post_init__(self) -> None:
        self.half_open = HalfOpen(self.limits.max_handshakes_per_address)

    @property
    def is_full(self) -> bool:
        """Whether there is no place for one more client."""
        named = len(self.transports) - len(self.unnamed)
        return named >= self.limits.max_connections or self.has_no_room

    @property
    def has_no_room(self) -> bool:
        """Whether there is no place for anybody, known or not."""
        most = self.limits.max_connections + (self.limits.max_unnamed if self.balancers else 0)
        return len(self.transports) >= most

    def is_balancer(self, host: str) -> bool:
        """Whether `host` is a balancer whose word on the client's address counts."""
        address = plain(host)
        return any(address in network for network in self.balancers)


def peer_name(name: tuple[str, int] | None) -> str:
    """The client's `address:port`."""
    if not name:
        return "unknown"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def half_close(raw: asyncio.Transport) -> None:
    """Say that nothing more comes, and take up reading, which tells when the client has gone."""
    # It may have gone, unread: what was said last was answered with a reset then.
    with contextlib.suppress(OSError):
        if raw.can_write_eof():
            raw.write_eof()
    raw.resume_reading()


class Farewell(asyncio.BufferedProtocol):
    """Says the last words, half-closes, and discards what still comes, for a moment."""

    __slots__ = ("_left", "_listener", "_raw", "_timer")

    def __init__(self, listener: Listener, raw: asyncio.Transport) -> None:
        self._listener = listener
        self._raw = raw
        self._left = MAX_DISCARDED_BYTES
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(listener.limits.linger_seconds, raw.abort)

    @classmethod
    def say(
        cls, listener: Listener, raw: asyncio.Transport, last_words: bytes | memoryview | None
    ) -> None:
        """Take over `raw` for its last moments; drop it when it is closing already."""
        farewell = cls(listener, raw)
        raw.set_protocol(farewell)
        if raw.is_closing():
            return
        if last_words:
            raw.write(last_words)
        half_close(raw)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._listener.received

    def buffer_updated(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            self._raw.abort()

    def eof_received(self) -> bool:
        return False  # the client has had its say: the transport closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._listener.transports.discard(self._raw)
