"""Whether to speak to a registry at all: closed, open, and one probe at a time in between.

Guarantees: a 429, or several failures without an answer in between, open it; while it is open nobody but one
probe at a time is let through, and that not before the time that the registry asked for; the
first probe that gets an answer closes it. An answer about one thing that is missing or refused
(404, 401, 403) is an answer. Pure: it is told the time and the chance. See `gate` for the waiting.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from facade.errors import Upstream
from facade.reasons import Reason


@dataclass(frozen=True, slots=True)
class CircuitPolicy:
    """When to open, and when to probe.

    Arguments:
        failures: in a row, until it opens.
        base_seconds: until the first probe; doubles with each that fails.
        cap_seconds: no pause between probes is longer, but for a Retry-After.
        longest_retry_after: seconds; a longer Retry-After is probed after this.
        chance: gives a number in [0, 1): half of each pause is left to it, so that several
            processes do not probe together.
    """

    failures: int = 5
    base_seconds: float = 1.0
    cap_seconds: float = 10.0
    longest_retry_after: float = 3600.0
    chance: Callable[[], float] = random.SystemRandom().random


class Circuit:
    """One registry's. Times are monotonic seconds."""

    __slots__ = (
        "_failures",
        "_policy",
        "_probing",
        "_reopened",
        "_retry_at",
        "opened_at",
        "trouble",
    )

    def __init__(self, policy: CircuitPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._reopened = 0
        self._probing = False
        self._retry_at = 0.0
        self.opened_at: float | None = None
        """Since when it is open; None = it is closed."""
        self.trouble: Upstream | None = None
        """What opened it, or the last probe's failure."""

    def wait(self, now: float) -> float | None:
        """Seconds until the next may go out: 0 = now; None = when the running probe has ended."""
        if self.opened_at is None:
            return 0.0
        return None if self._probing else max(0.0, self._retry_at - now)

    def enter(self) -> bool:
        """One goes out, as `wait` allowed; returns whether it is the probe.

        Its end must be told: `succeeded`, `failed` or `left`.
        """
        if self.opened_at is None:
            return False
        self._probing = True
        return True

    def succeeded(self, *, probe: bool) -> bool:
        """The registry answered; returns whether that closes the circuit.

        An answer to what went out before it opened proves nothing.
        """
        if self.opened_at is None:
            self._failures = 0
            return False
        if not probe:
            return False
        self._close()
        return True

    def failed(self, trouble: Upstream, now: float, *, probe: bool) -> bool:
        """It did not, or not well; returns whether that opens the circuit."""
        if self.opened_at is None:
            self._failures += 1
            limited = trouble.reason is Reason.UPSTREAM_RATE_LIMITED
            if not limited and self._failures < self._policy.failures:
                return False
            self.opened_at = now
            self._schedule(trouble, now)
            return True
        if probe:
            self._probing = False
            self._reopened += 1
            self._schedule(trouble, now)
        elif trouble.retry_after is not None:  # it went out earlier and knows more
            self._retry_at = max(self._retry_at, now + self._asked_for(trouble))
        return False

    def left(self, *, probe: bool) -> None:
        """It ended without a verdict, like a device that left: the next may probe."""
        if probe:
            self._probing = False

    def refusal(self, now: float) -> Upstream:
        """What those are told who cannot wait for it to close."""
        trouble = self.trouble
        assert trouble is not None, "an open circuit knows why"
        wait = max(1.0, self._retry_at - now)
        return Upstream(
            trouble.message, reason=_reason(trouble), status=trouble.status, retry_after=wait
        )

    def _schedule(self, trouble: Upstream, now: float) -> None:
        policy = self._policy
        ceiling = min(policy.cap_seconds, policy.base_seconds * 2.0 ** min(self._reopened, 32))
        pause = ceiling * (0.5 + policy.chance() / 2)
        self._retry_at = now + max(pause, self._asked_for(trouble))
        self.trouble = trouble

    def _asked_for(self, trouble: Upstream) -> float:
        return min(trouble.retry_after or 0.0, self._policy.longest_retry_after)

    def _close(self) -> None:
        self._failures = self._reopened = 0
        self._probing = False
        self.opened_at = self.trouble = None


def _reason(trouble: Upstream) -> Reason:
    return trouble.reason or Reason.UPSTREAM_UNREACHABLE
