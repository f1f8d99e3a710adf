"""When views are made, shared, kept and given up."""

import asyncio
import threading
from collections.abc import Callable, Iterable

import pytest

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.trust.refresher import FAILED_RETRY_SECONDS, Refresher
from facade.serving.trust.view import FleetView, SignedView
from tests.support.clock import FakeClock

_EXPIRES = 1e12


class Script:
    """Makes views as told, in the refresher's thread."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.known = frozenset({"dev", "prod"})
        self.failing: Unavailable | Exception | None = None
        self.persisted_failing: Unavailable | None = _error()
        self.broken_fleets: set[str] = set()
        self.clock_error: Unavailable | None = None
        self.asked: list[frozenset[str]] = []
        self.gate: threading.Event | None = None
        self.expires = _EXPIRES

    def refresh(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        self.asked.append(frozenset(fleets))
        if self.gate is not None:
            assert self.gate.wait(5)
        if self.failing is not None:
            raise self.failing
        return self._view(previous, fleets)

    def persisted(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        if self.persisted_failing is not None:
            raise self.persisted_failing
        return self._view(previous, fleets)

    def check_clock(self) -> float:
        if self.clock_error is not None:
            raise self.clock_error
        return self.clock.time()

    def _view(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        good = {fleet for fleet in fleets if fleet in self.known} - self.broken_fleets
        return SignedView(
            generation=previous.generation + 1 if previous else 1,
            versions={"timestamp": len(self.asked)},
            expires=dict.fromkeys(("root", "targets", "snapshot", "timestamp"), self.expires),
            known_fleets=self.known,
            fleets={f: FleetView.build(f, [], version=1, expires=_EXPIRES) for f in good},
            failed={fleet: _error() for fleet in self.broken_fleets & set(fleets)},
        )


class Observer:
    def __init__(self) -> None:
        self.views: list[SignedView] = []
        self.failures: list[Reason | str] = []

    def refreshed(self, view: SignedView) -> None:
        self.views.append(view)

    def refresh_failed(self, reason: Reason | str) -> None:
        self.failures.append(reason)


def _error(reason: Reason = Reason.METADATA_UNAVAILABLE) -> Unavailable:
    return Unavailable("It failed.", reason=reason, retry_after=7)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def script(clock: FakeClock) -> Script:
    return Script(clock)


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def refresher(script: Script, clock: FakeClock, observer: Observer) -> Refresher:
    return Refresher(script, clock=clock, refresh_seconds=30, fleets=["dev"], observer=observer)


async def _turns(refreshes: Callable[[], int], count: int) -> None:
    """Wait for that many refreshes, giving their threads real time."""
    async with asyncio.timeout(5):
        while refreshes() < count:  # noqa: ASYNC110 - real threads
            await asyncio.sleep(0.001)


async def test_before_the_first_view_nothing_is_served(refresher: Refresher) -> None:
    with pytest.raises(Unavailable) as caught:
        refresher.view()
    assert caught.value.reason is Reason.METADATA_UNAVAILABLE
    assert not refresher.status().ready
    await refresher.fleet("dev")
    await refresher.stop()


async def test_it_refreshes_at_start_and_on_the_timer(
    refresher: Refresher, script: Script, clock: FakeClock, observer: Observer
) -> None:
    await refresher.start()
    first = refresher.view()
    assert set(first.fleets) == {"dev"}
    await clock.wait_for_sleepers()
    clock.advance(29.9)
    await asyncio.sleep(0.01)
    assert refresher.view() is first
    clock.advance(0.1)
    await _turns(lambda: len(observer.views), 2)
    assert refresher.view() is not first
    assert observer.views == [first, refresher.view()]
    await refresher.stop()
    assert clock.sleepers == 0


async def test_a_failed_refresh_keeps_the_view_and_says_so(
    refresher: Refresher, script: Script, clock: FakeClock, observer: Observer
) -> None:
    await refresher.start()
    view = refresher.view()
    script.failing = _error()
    with pytest.raises(Unavailable) as caught:
        await refresher.refresh()
    assert caught.value.retry_after == 7
    assert refresher.view() is view
    status = refresher.status()
    assert status.ready
    assert (status.reason, status.message) == (Reason.METADATA_UNAVAILABLE, "It failed.")
    assert observer.failures == [Reason.METADATA_UNAVAILABLE]
    script.failing = None
    await refresher.refresh()
    assert refresher.status().reason is None
    await refresher.stop()


async def test_failures_are_tried_again_soon_and_then_less_often(
    refresher: Refresher, script: Script, clock: FakeClock, observer: Observer
) -> None:
    script.failing = _error()
    await refresher.start()
    for turn, delay in enumerate([5.0, 10.0, 20.0, 30.0, 30.0], start=1):
        await clock.wait_for_sleepers()
        assert clock.slept[-1] == delay
        clock.advance(delay)
        await _turns(lambda: len(observer.failures), turn + 1)
    script.failing = None
    await clock.wait_for_sleepers()
    clock.advance(30)
    await _turns(lambda: len(observer.views), 1)
    await clock.wait_for_sleepers()
    assert clock.slept[-1] == 30
    await refresher.stop()


async def test_a_fleet_that_failed_is_tried_again_soon(
    refresher: Refresher, script: Script, clock: FakeClock
) -> None:
    script.broken_fleets = {"dev"}
    await refresher.start()
    await clock.wait_for_sleepers()
    assert clock.slept[-1] == FAILED_RETRY_SECONDS
    assert refresher.status().ready
    assert refresher.status().message
    await refresher.stop()


async def test_a_defect_does_not_end_refreshing(
    refresher: Refresher, script: Script, clock: FakeClock, observer: Observer
) -> None:
    await refresher.start()
    script.failing = RuntimeError("a defect")
    await clock.wait_for_sleepers()
    clock.advance(30)
    await _turns(lambda: len(script.asked), 2)
    script.failing = None
    await clock.wait_for_sleepers()
    clock.advance(30)
    await _turns(lambda: len(observer.views), 2)
    await refresher.stop()


async def test_whoever_asks_gets_a_refresh_that_started_later(
    refresher: Refresher, script: Script
) -> None:
    script.gate = threading.Event()
    first = asyncio.create_task(refresher.refresh())
    await _turns(lambda: len(script.asked), 1)
    later = [asyncio.create_task(refresher.refresh()) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in (first, *later))
    script.gate.set()
    await asyncio.gather(first, *later)
    assert len(script.asked) == 2, "one for the first, one for all five"
    await refresher.stop()


async def test_a_waiter_that_leaves_does_not_stop_the_refresh(
    refresher: Refresher, script: Script, observer: Observer
) -> None:
    script.gate = threading.Event()
    leaving, staying = (asyncio.create_task(refresher.refresh()) for _ in range(2))
    await _turns(lambda: len(script.asked), 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert leaving.cancelled()
    script.gate.set()
    await staying
    assert len(observer.views) == 1
    await refresher.stop()


async def test_stopping_waits_for_the_thread(refresher: Refresher, script: Script) -> None:
    script.gate = threading.Event()
    abandoned = asyncio.create_task(refresher.refresh())
    await _turns(lambda: len(script.asked), 1)
    abandoned.cancel()
    stopping = asyncio.create_task(refresher.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    script.gate.set()
    await stopping
    assert refresher.view().generation == 1


async def test_a_fleet_is_loaded_when_asked_for_once_for_all(
    refresher: Refresher, script: Script
) -> None:
    await refresher.start()
    await asyncio.gather(*(refresher.fleet("prod") for _ in range(10)))
    assert set(refresher.view().fleets) == {"dev", "prod"}
    assert len(script.asked) == 2
    await refresher.fleet("prod")
    assert len(script.asked) == 2
    await refresher.stop()


async def test_an_unknown_fleet_costs_no_refresh(refresher: Refresher, script: Script) -> None:
    await refresher.start()
    await refresher.fleet("nobody")
    assert len(script.asked) == 1
    await refresher.stop()


async def test_a_fleet_that_cannot_be_had_is_not_asked_for_again_at_once(
    refresher: Refresher, script: Script, clock: FakeClock
) -> None:
    await refresher.start()
    script.failing = _error()
    await refresher.fleet("prod")
    await refresher.fleet("prod")
    assert len(script.asked) == 2
    clock.advance(FAILED_RETRY_SECONDS)
    await refresher.fleet("prod")
    assert len(script.asked) == 3
    await refresher.stop()


async def test_with_the_source_away_what_was_persisted_serves(
    refresher: Refresher, script: Script
) -> None:
    script.failing, script.persisted_failing = _error(), None
    await refresher.start()
    assert set(refresher.view().fleets) == {"dev"}
    assert refresher.status().ready
    assert refresher.status().reason is Reason.METADATA_UNAVAILABLE
    assert refresher.status().refreshed_at is None
    await refresher.fleet("prod")
    assert set(refresher.view().fleets) == {"dev", "prod"}
    await refresher.stop()


async def test_a_clock_set_back_stops_everything(refresher: Refresher, script: Script) -> None:
    await refresher.start()
    script.clock_error = _error(Reason.CLOCK_SET_BACK)
    with pytest.raises(Unavailable):
        refresher.view()
    assert not refresher.status().ready
    assert refresher.status().reason is Reason.CLOCK_SET_BACK
    await refresher.stop()


async def test_the_status_tells_expiry(
    refresher: Refresher, script: Script, clock: FakeClock
) -> None:
    script.expires = clock.time() + 100
    await refresher.start()
    assert refresher.status().seconds_to_expiry["timestamp"] == 100
    clock.advance(101)
    await refresher.stop()
    status = refresher.status()
    assert not status.ready
    assert status.reason is Reason.METADATA_EXPIRED
    assert status.seconds_to_expiry["timestamp"] == -1


async def test_subscribers_hear_of_every_view_until_they_leave(refresher: Refresher) -> None:
    heard: list[SignedView] = []

    def broken(view: SignedView) -> None:
        raise RuntimeError("a subscriber's defect is its own")

    refresher.subscribe(broken)
    leave = refresher.subscribe(heard.append)
    await refresher.start()
    await refresher.refresh()
    leave()
    await refresher.refresh()
    assert [view.generation for view in heard] == [1, 2]
    await refresher.stop()
