"""The machine's clock behind the port."""

import asyncio
import time
from datetime import UTC

import pytest

from facade.clock import Clock, SystemClock, on_the_beat, utc
from tests.support.clock import FakeClock, settle


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


async def test_whoever_waits_for_the_beat_wakes_with_the_others_and_never_later_than_asked() -> (
    None
):
    clock, woken = FakeClock(), list[tuple[str, float]]()

    async def look(name: str, seconds: float) -> None:
        while True:
            await on_the_beat(clock, seconds)
            woken.append((name, clock.monotonic()))

    tasks = [asyncio.create_task(look("a", 0.5))]
    await settle()
    await clock.run_for(0.75)
    tasks += [asyncio.create_task(look("b", 1.0))]
    await settle()
    await clock.run_for(1.25)
    for task in tasks:
        task.cancel()
    assert sorted(woken) == [("a", 0.5), ("a", 1.0), ("a", 1.5), ("a", 2.0), ("b", 1.0), ("b", 2.0)]
