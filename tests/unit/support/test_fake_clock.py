"""The fake clock keeps what its docstring promises."""

import asyncio

import pytest

from facade.clock import Clock, utc
from tests.support.clock import EPOCH, FakeClock, settle


async def _note(clock: Clock, seconds: float, notes: list[tuple[float, float]]) -> None:
    await clock.sleep(seconds)
    notes.append((seconds, clock.monotonic()))


async def test_time_stands_still_until_moved() -> None:
    clock = FakeClock(100.0)
    await asyncio.sleep(0.002)
    assert (clock.time(), clock.monotonic()) == (100.0, 0.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 2.5)


async def test_a_sleeper_wakes_at_its_deadline_and_not_before() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.run_for(9.99)
    assert not task.done()
    await clock.run_for(0.01)
    assert task.done()
    assert clock.sleepers == 0


async def test_advance_wakes_sleepers_too() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.wait_for_sleepers(1)
    clock.advance(10)
    await asyncio.wait_for(task, 1)


async def test_run_for_wakes_in_order_each_at_its_own_deadline() -> None:
    clock = FakeClock()
    notes: list[tuple[float, float]] = []
    tasks = [asyncio.create_task(_note(clock, seconds, notes)) for seconds in (3, 1, 2)]
    await clock.run_for(10)
    assert notes == [(1, 1), (2, 2), (3, 3)]
    assert clock.monotonic() == 10
    await asyncio.gather(*tasks)


async def test_run_for_gives_a_periodic_task_all_its_turns() -> None:
    clock = FakeClock()
    turns: list[float] = []

    async def periodic() -> None:
        while True:
            await clock.sleep(2)
            turns.append(clock.monotonic())

    task = asyncio.create_task(periodic())
    await clock.run_for(7)
    assert turns == [2, 4, 6]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0


@pytest.mark.parametrize("seconds", [0, -1])
async def test_no_time_to_sleep_returns_at_once(seconds: float) -> None:
    clock = FakeClock()
    await asyncio.wait_for(clock.sleep(seconds), 1)
    assert clock.slept == []
    assert clock.monotonic() == 0


async def test_auto_mode_sleeps_without_a_test_moving_it() -> None:
    clock = FakeClock(auto=True)
    for seconds in (1, 2, 4):
        await asyncio.wait_for(clock.sleep(seconds), 1)
    assert clock.monotonic() == 7
    assert clock.slept == [1, 2, 4]


async def test_auto_mode_lets_the_shorter_sleeper_go_first_every_time() -> None:
    clock = FakeClock(auto=True)
    notes: list[tuple[float, float]] = []

    async def short() -> None:
        for _ in range(3):
            await _note(clock, 1, notes)

    await asyncio.wait_for(asyncio.gather(_note(clock, 10, notes), short()), 1)
    assert notes == [(1, 1), (1, 2), (1, 3), (10, 10)]


async def test_auto_mode_starts_again_after_everybody_left() -> None:
    clock = FakeClock(auto=True)
    task = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    task.cancel()
    await settle()
    assert task.cancelled()
    assert clock.monotonic() == 0
    await settle()
    await asyncio.wait_for(clock.sleep(1), 1)
    assert clock.monotonic() == 1


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = FakeClock()
    gone, kept = asyncio.create_task(clock.sleep(1)), asyncio.create_task(clock.sleep(2))
    await clock.wait_for_sleepers(2)
    gone.cancel()
    await settle()
    assert clock.sleepers == 1
    await clock.run_for(2)
    assert kept.done()


async def test_waiting_for_sleepers_that_never_come_ends() -> None:
    clock = FakeClock()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(clock.wait_for_sleepers(1), 0.02)


def test_the_wall_clock_can_be_set_back_alone() -> None:
    clock = FakeClock()
    clock.shift(-600)
    assert clock.time() == EPOCH - 600
    assert clock.monotonic() == 0


def test_advance_refuses_to_go_back() -> None:
    with pytest.raises(ValueError, match="shift"):
        FakeClock().advance(-1)


def test_it_is_a_clock() -> None:
    clock: Clock = FakeClock(0.0)
    assert utc(clock).isoformat() == "1970-01-01T00:00:00+00:00"
