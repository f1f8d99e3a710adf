"""Time as a dependency: wall clock, monotonic clock and sleep behind one port.

Nothing in facade/ calls `time.time`, `datetime.now` or `asyncio.sleep` directly where a
decision depends on it; it asks a `Clock`. Tests pass `tests.support.clock.FakeClock`.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def time(self) -> float:
        """Seconds since the Unix epoch (may jump)."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start (never goes back)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, at once when it is not positive."""
        ...


class SystemClock:
    """The machine's clocks."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


def next_beat(clock: Clock, seconds: float) -> float:
    """The next whole multiple of `seconds` on the monotonic clock."""
    now = clock.monotonic()
    return now - now % seconds + seconds


async def on_the_beat(clock: Clock, seconds: float) -> None:
    """Return at the next whole multiple of `seconds`: after as long at most.

    For whatever looks at something again and again. A processor that wakes from idling finds its caches
    cold, which costs more than the look; so all who look wake together, in all processes of a machine,
    which share that clock.
    """
    await clock.sleep(next_beat(clock, seconds) - clock.monotonic())


def utc(clock: Clock) -> datetime:
    """The clock's wall time as an aware datetime in UTC."""
    return datetime.fromtimestamp(clock.time(), UTC)
