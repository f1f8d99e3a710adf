"""How long a client may take, how many there may be, and who has outstayed.

Guarantees: pure; times come in as arguments. `Watchdog` never ends a connection on which the client
takes its bytes at the minimum rate, nor one in the middle of an answer that makes the client
wait. Does not know where an answer ends: after the first request it is the HTTP server's keep-alive
limit that counts, between requests and in the middle of a request's head, so that one must be
set too. (aiohttp's does not run before the first answer: that part is ours.)
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class TlsLimits:
    """Time and number limits of a listener.

    Arguments:
        handshake_seconds: from accept to the end of the handshake.
        idle_seconds: from the handshake to the end of the first request's head that the HTTP server
            sees, however it trickles; what was answered before it saw any begins that anew.
        silence_seconds: silence in both directions later on. A last net, hours long: a strict
            pull sends nothing before the whole blob is verified, and a stalled upstream makes
            any pull wait.
        stall_seconds, min_bytes_per_second: a client that took fewer bytes a second than this
            from a full buffer, over this long, is cut.
        linger_seconds: how long a refused client may take to read its alert, and one that sent more
            than was read of it, to read its answer's end.
        max_connections: beyond this new ones are closed at once.
        max_unnamed: so many more of listed balancers', until they have said for whom they come: only
            then it can be told who makes room.
        max_handshakes_per_address: handshakes under way from one address (of IPv6: from one /64).
            When all connections are taken, the greediest address makes room before a newcomer is
            turned away (`half_open`).
        max_per_certificate: of these, with one client certificate: no device keeps the others out.
    """

    handshake_seconds: float = 10.0
    idle_seconds: float = 75.0
    silence_seconds: float = 3 * 3600.0
    stall_seconds: float = 30.0
    min_bytes_per_second: float = 1024.0
    linger_seconds: float = 2.0
    max_connections: int = 4096
    max_unnamed: int = 64
    max_handshakes_per_address: int = 2048
    max_per_certificate: int = 256

    @property
    def interval(self) -> float:
        """Seconds between two looks at a connection."""
        return min(self.idle_seconds, self.silence_seconds, self.stall_seconds)


class Verdict(Enum):
    """What to do with a connection."""

    KEEP = "keep"
    CLOSE = "close"  # it is idle: say goodbye
    CUT = "cut"  # it does not take its bytes


class Watchdog:
    """Looks at one connection every `TlsLimits.interval` seconds."""

    __slots__ = ("_began", "_buffered", "_limits", "_looked", "_sent", "asked", "last")

    def __init__(self, limits: TlsLimits, now: float) -> None:
        self._limits = limits
        self._began = self._looked = now
        self._sent = 0
        self._buffered = 0
        self.last = now
        """When a byte last moved between us and the application, either way."""
        self.asked = False
        """Whether a whole request ever came: bytes that trickle are none."""

    def begin(self) -> None:
        """A request was answered, and the HTTP server saw none: the time for the next one begins."""
        self._began, self.asked = self.last, False

    def look(self, now: float, *, sent: int, buffered: int) -> Verdict:
        """Judge the connection.

        Arguments:
            sent: bytes that the kernel took so far, of the whole connection.
            buffered: bytes that wait for it.
        """
        taken, had, seconds = sent - self._sent, self._buffered, now - self._looked
        if seconds >= self._limits.stall_seconds or not had:
            self._sent, self._buffered, self._looked = sent, buffered, now
            if had and taken < min(had, self._limits.min_bytes_per_second * seconds):
                return Verdict.CUT
        return Verdict.CLOSE if not buffered and self._silent(now) else Verdict.KEEP

    def _silent(self, now: float) -> bool:
        if not self.asked:
            return now - self._began >= self._limits.idle_seconds
        return now - self.last >= self._limits.silence_seconds
