"""How long a client may take, how many there may be, and who has outstayed.

Guarantees: pure; times come in as arguments. `Watchdog` never ends a connection on which the
client takes its bytes at the minimum rate, or on which an answer is owed within its time.
Does not watch the time a request's head takes: the HTTP server's keep-alive time limit does.
"""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class TlsLimits:
    """Time and number limits of a listener.

    Arguments:
        handshake_seconds: from accept to the end of the handshake.
        idle_seconds: silence in both directions when the last word was ours (a client that
            holds a connection and asks nothing).
        grown_idle_seconds: the same for a connection that carried big writes: OpenSSL's memory
            BIO never shrinks, so such a connection is dearer to keep than to make anew.
        answer_seconds: silence when the last word was the client's: generous, since a strict
            pull sends nothing before the whole blob is verified.
        stall_seconds, min_bytes_per_second: a client that took fewer bytes a second than this
            from a full buffer, over this long, is cut.
        linger_seconds: how long a refused client may take to read its alert.
        max_connections: beyond this new ones are closed at once.
    """

    handshake_seconds: float = 10.0
    idle_seconds: float = 120.0
    grown_idle_seconds: float = 15.0
    answer_seconds: float = 3600.0
    stall_seconds: float = 30.0
    min_bytes_per_second: float = 1024.0
    linger_seconds: float = 2.0
    max_connections: int = 4096

    @property
    def interval(self) -> float:
        """Seconds between two looks at a connection."""
        return min(self.idle_seconds, self.grown_idle_seconds, self.stall_seconds)


class Verdict(Enum):
    """What to do with a connection."""

    KEEP = "keep"
    CLOSE = "close"  # it is idle: say goodbye
    CUT = "cut"  # it does not take its bytes


class Watchdog:
    """Looks at one connection every `TlsLimits.interval` seconds."""

    __slots__ = ("_buffered", "_limits", "_looked", "_sent", "grown", "last", "owed")

    def __init__(self, limits: TlsLimits, now: float) -> None:
        self._limits = limits
        self._looked = now
        self._sent = 0
        self._buffered = 0
        self.last = now
        """When a byte last moved between us and the application, either way."""
        self.owed = False
        """Whether the client spoke last."""
        self.grown = False
        """Whether a big write went through."""

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
        limits = self._limits
        limit = limits.grown_idle_seconds if self.grown else limits.idle_seconds
        return now - self.last >= (limits.answer_seconds if self.owed else limit)
