"""How late the event loop wakes up: the first sign of a callback that blocks.

Guarantees: one observation per interval; costs one timer. Does not say who blocked.
"""

from typing import Protocol

from facade.clock import Clock, next_beat

INTERVAL_SECONDS = 1.0


class LagObserver(Protocol):
    """Who wants to know."""

    def loop_lag(self, seconds: float) -> None:
        """The loop woke `seconds` late."""
        ...


async def measure_lag(clock: Clock, observer: LagObserver) -> None:
    """Measure until cancelled; run it as a task of its own."""
    while True:
        due = next_beat(clock, INTERVAL_SECONDS)
        await clock.sleep(due - clock.monotonic())
        observer.loop_lag(max(0.0, clock.monotonic() - due))
