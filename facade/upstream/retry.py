"""When to try again, and when to stop.

Guarantees: exponential backoff with full jitter; `Retry-After` is honoured; attempts, the time to
the first byte and the time without reaching the host at all are bounded. Pure: it is told the
time and the chance, and sleeps nowhere.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_SECONDS = 24 * 3600.0
"""A longer Retry-After is taken as this."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently.

    Arguments:
        attempts: most sends of one request, the first included (a challenge's do not count).
        base_seconds: upper end of the first pause; it doubles with each attempt.
        cap_seconds: no pause is longer (a Retry-After may be).
        chance: gives a number in [0, 1): the jitter.
    """

    attempts: int = 5
    base_seconds: float = 0.25
    cap_seconds: float = 8.0
    chance: Callable[[], float] = random.SystemRandom().random

    def pause(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt` (from 1): full jitter."""
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 32))
        return self.chance() * ceiling


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on waiting, in seconds, and on slowness.

    Arguments:
        connect: one attempt at DNS, TCP and TLS together.
        unreachable: all attempts together while the host was never reached.
        first_byte: from asking to the head of the answer, all attempts and pauses included.
        small_body: a whole manifest, page, token answer or error body.
        stall_window, stall_bytes: a body that brings fewer bytes than this in a window is broken.
    """

    connect: float = 5.0
    unreachable: float = 15.0
    first_byte: float = 30.0
    small_body: float = 20.0
    stall_window: float = 15.0
    stall_bytes: int = 16 * 1024


class Attempts:
    """The budget of one request: counts attempts, watches the deadlines. All times monotonic."""

    def __init__(self, policy: RetryPolicy, timeouts: Timeouts, now: float) -> None:
        self._policy = policy
        self._timeouts = timeouts
        self._started = now
        self._made = 0
        self._reached = False

    def remaining(self, now: float) -> float:
        """Seconds left until the first-byte deadline; never negative."""
        return max(0.0, self._started + self._timeouts.first_byte - now)

    def reached(self) -> None:
        """The host was reached: the shorter unreachable deadline is off."""
        self._reached = True

    def next_pause(self, now: float, *, retry_after: float | None = None) -> float | None:
        """Seconds to wait before trying again after one more failure; None = give up.

        Arguments:
            retry_after: what the answer asked for; a wait beyond the deadline means giving up.
        """
        self._made += 1
        if self._made >= self._policy.attempts:
            return None
        pause = self._policy.pause(self._made)
        if retry_after is not None:
            pause = max(pause, retry_after)
        limit = self._timeouts.first_byte
        if not self._reached:
            limit = min(limit, self._timeouts.unreachable)
        return pause if now + pause < self._started + limit else None


def is_transient(status: int) -> bool:
    """Whether an answer may be different next time."""
    return status in (408, 429) or (500 <= status <= 599 and status not in (501, 505))


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait, from a `Retry-After` field (RFC 9110, 10.2.3: seconds or a date).

    Arguments:
        now: Unix seconds.

    Returns None when absent or unreadable; never negative, at most MAX_RETRY_AFTER_SECONDS.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        when = parsedate_to_datetime(text)
        seconds = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None
