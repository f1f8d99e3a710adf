"""Rates of one device: within them nobody waits; beyond them waiting first, then a refusal."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.pulls import rates as module
from facade.serving.pulls.rates import Bucket, DeviceRates, Rates
from tests.support.clock import FakeClock, settle

KIOSK, OTHER = ("dev", "kiosk-7"), ("dev", "kiosk-8")
MIB = 1024 * 1024


class Waits:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def rate_waited(self, limit: str) -> None:
        self.seen.append(limit)


def device_rates(clock: FakeClock, waits: Waits | None = None, **given: float) -> DeviceRates:
    return DeviceRates(
        Rates(**given),  # type: ignore[arg-type]  # numbers all
        wait_seconds=30,
        clock=clock,
        observer=waits or Waits(),
    )


@given(
    st.floats(0.1, 1000), st.floats(1, 1000), st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50)))
)
def test_nobody_gets_more_than_the_burst_and_the_rate(
    rate: float, burst: float, takes: list[tuple[float, float]]
) -> None:
    """Who waits as told has had, at any moment, at most the burst and what the time since brought."""
    bucket, now, taken = Bucket(rate, burst, 0.0), 0.0, 0.0
    for pause, count in takes:
        now += pause
        taken += count
        now += bucket.take(count, now)
        assert taken <= (burst + rate * now) * (1 + 1e-9) + 1e-6


async def test_a_pull_is_a_burst_that_does_not_wait() -> None:
    clock, waits = FakeClock(), Waits()
    rates = device_rates(clock, waits, requests_per_second=1)
    for _ in range(32):
        await rates.request(KIOSK)
    assert waits.seen == []
    more = asyncio.create_task(rates.request(KIOSK))
    await settle()
    assert not more.done()
    await rates.request(OTHER)
    await clock.run_for(1)
    assert more.done()
    assert waits.seen == ["requests"]


async def test_beyond_the_longest_wait_it_is_refused_and_pays_nothing_for_it() -> None:
    clock = FakeClock()
    rates = device_rates(clock, requests_per_second=1)
    waiting = [asyncio.create_task(rates.request(KIOSK)) for _ in range(32 + 31)]
    await settle()
    for _ in range(5):
        with pytest.raises(Unavailable) as refusal:
            await rates.request(KIOSK)
    assert refusal.value.reason is Reason.DEVICE_RATE_LIMITED
    assert refusal.value.retry_after == pytest.approx(31)
    await clock.run_for(32)
    assert all(task.done() for task in waiting)
    await rates.request(KIOSK)


async def test_bytes_are_sent_at_their_rate() -> None:
    clock = FakeClock(auto=True)
    waits = Waits()
    rates = device_rates(clock, waits, bytes_per_second=MIB)
    await rates.stream(KIOSK)
    for _ in range(40):
        await rates.sent(KIOSK, MIB // 4)
    assert clock.monotonic() == pytest.approx(9)  # ten MiB, the first of them at once
    assert set(waits.seen) == {"bytes"}


async def test_a_stream_waits_for_what_others_of_the_device_took_and_then_is_refused() -> None:
    clock = FakeClock()
    rates = device_rates(clock, bytes_per_second=MIB)
    sending = [asyncio.create_task(rates.sent(KIOSK, 11 * MIB))]
    await settle()
    later = asyncio.create_task(rates.stream(KIOSK))
    await settle()
    assert not later.done()
    sending.append(asyncio.create_task(rates.sent(KIOSK, 30 * MIB)))
    await settle()
    with pytest.raises(Unavailable) as refusal:
        await rates.stream(KIOSK)
    assert refusal.value.retry_after == pytest.approx(40)
    await clock.run_for(10)
    assert later.done()
    await clock.run_for(30)
    assert all(task.done() for task in sending)


async def test_the_bytes_of_a_day_end_with_it() -> None:
    clock = FakeClock()
    rates = device_rates(clock, bytes_per_day=100)
    await rates.stream(KIOSK)
    await rates.sent(KIOSK, 99)
    await rates.stream(KIOSK)  # which may go beyond, and ends all the same
    await rates.sent(KIOSK, 50)
    with pytest.raises(Unavailable) as refusal:
        await rates.stream(KIOSK)
    left = 86_400 - clock.time() % 86_400
    assert refusal.value.retry_after == pytest.approx(left)
    await rates.stream(OTHER)
    clock.advance(left)
    await rates.stream(KIOSK)


async def test_what_is_not_bounded_is_not_counted() -> None:
    clock = FakeClock()
    rates = device_rates(clock)
    for _ in range(1000):
        await rates.request(KIOSK)
        await rates.stream(KIOSK)
        await rates.sent(KIOSK, 1 << 40)
    assert clock.slept == []
    assert not Rates().any


async def test_devices_that_come_and_go_take_bounded_memory() -> None:
    rates = device_rates(FakeClock(), requests_per_second=1)
    for number in range(module.MAX_DEVICES + 10):
        await rates.request(("dev", str(number)))
    assert len(rates._accounts) == module.MAX_DEVICES
