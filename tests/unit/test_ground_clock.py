"""The machine's clock behind the port."""

import asyncio
import time
from datetime import UTC

import pytest

from facade.clock import Clock, SystemClock, utc


def test_it_tells_the_machines_time() -> None:
    clock: Clock = SystemClock()
    before, monotonic = time.time(), time.monotonic()
    assert before <= clock.time() <= before + 5
    assert monotonic <= clock.monotonic() <= monotonic + 5
    assert utc(clock).tzinfo is UTC
    assert utc(clock).timestamp() == pytest.approx(before, abs=5)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.01])
async def test_it_sleeps_and_never_chokes_on_the_past(seconds: float) -> None:
    clock = SystemClock()
    start = time.monotonic()
    await asyncio.wait_for(clock.sleep(seconds), 2)
    assert time.monotonic() - start >= max(0.0, seconds) * 0.9
