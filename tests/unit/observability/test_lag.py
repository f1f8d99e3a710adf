"""The loop's lag is what the wake-up came late by, and never negative."""

import asyncio

from facade.observability.lag import INTERVAL_SECONDS, measure_lag
from tests.support.clock import FakeClock, settle


class Lags(list[float]):
    def loop_lag(self, seconds: float) -> None:
        self.append(round(seconds, 3))


async def test_a_late_wake_up_is_seen() -> None:
    clock, lags = FakeClock(), Lags()
    task = asyncio.create_task(measure_lag(clock, lags))
    await settle()
    await clock.run_for(INTERVAL_SECONDS)
    clock.advance(INTERVAL_SECONDS + 0.25)
    await settle()
    task.cancel()
    assert lags == [0.0, 0.25]
