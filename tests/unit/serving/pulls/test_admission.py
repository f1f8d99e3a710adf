"""Slots: bounded, in order, given back exactly once, refused after waiting."""

import asyncio

import pytest

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.pulls.admission import Slots, device_overloaded, upstream_overloaded
from tests.support.clock import FakeClock, settle


class Waits:
    def __init__(self) -> None:
        self.now = 0

    def waiting(self, change: int) -> None:
        self.now += change


def slots(limit: int, clock: FakeClock, observer: Waits | None = None) -> Slots[str]:
    return Slots(limit, wait_seconds=30, clock=clock, refusal=device_overloaded, observer=observer)


async def test_within_the_limit_nobody_waits() -> None:
    clock = FakeClock()
    bound = slots(2, clock)
    async with bound.hold("a"), bound.hold("a"), bound.hold("b"):
        assert (bound.held("a"), bound.held("b")) == (2, 1)
    assert clock.slept == []


async def test_nobody_holding_costs_nothing() -> None:
    bound = slots(1, FakeClock())
    async with bound.hold("a"):
        assert bound.keys == 1
    assert (bound.keys, bound.held("a")) == (0, 0)


async def test_waiters_are_served_in_order() -> None:
    bound = slots(1, FakeClock())
    order: list[int] = []

    async def work(number: int) -> None:
        async with bound.hold("a"):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(work(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert bound.keys == 0


async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    bound = slots(1, FakeClock())
    await bound.acquire("a")
    first = asyncio.create_task(bound.acquire("a"))
    await settle()
    bound.release("a")  # handed to `first`, which has not run yet
    second = asyncio.create_task(bound.acquire("a"))
    await settle()
    assert (first.done(), second.done()) == (True, False)
    bound.release("a")
    await second
    bound.release("a")
    assert bound.keys == 0


async def test_after_the_wait_it_is_refused_and_says_when_to_retry() -> None:
    clock, waits = FakeClock(), Waits()
    bound = slots(1, clock, waits)
    await bound.acquire("a")
    waiter = asyncio.create_task(bound.acquire("a"))
    await settle()
    assert waits.now == 1
    await clock.run_for(29)
    assert not waiter.done()
    await clock.run_for(2)
    with pytest.raises(Unavailable) as refusal:
        await waiter
    assert refusal.value.reason is Reason.OVERLOADED
    assert refusal.value.retry_after
    assert (waits.now, clock.sleepers) == (0, 0)
    bound.release("a")
    assert bound.keys == 0


async def test_one_key_does_not_wait_for_another() -> None:
    bound = slots(1, FakeClock())
    async with bound.hold("a"):
        await asyncio.wait_for(bound.acquire("b"), 1)
        bound.release("b")


async def test_a_cancelled_waiter_leaves_no_trace() -> None:
    clock = FakeClock()
    bound = slots(1, clock)
    await bound.acquire("a")
    waiter = asyncio.create_task(bound.acquire("a"))
    await settle()
    waiter.cancel()
    await settle()
    assert clock.sleepers == 0
    bound.release("a")
    assert bound.keys == 0


async def test_a_slot_handed_to_somebody_just_cancelled_goes_on_to_the_next() -> None:
    bound = slots(1, FakeClock())
    await bound.acquire("a")
    unlucky = asyncio.create_task(bound.acquire("a"))
    lucky = asyncio.create_task(bound.acquire("a"))
    await settle()
    bound.release("a")  # handed over …
    unlucky.cancel()  # … to somebody who is gone before running
    await settle()
    assert unlucky.cancelled()
    assert lucky.done()
    bound.release("a")
    assert bound.keys == 0


def test_both_refusals_are_503_with_retry_after() -> None:
    for error in (device_overloaded(), upstream_overloaded()):
        assert error.reason is Reason.OVERLOADED
        assert error.retry_after is not None
