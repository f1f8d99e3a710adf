"""Reports on their way from a worker: bounded, in order, once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from facade.clock import SystemClock
from facade.link.calls import Caller
from facade.link.reporter import FLUSH_SECONDS, MAX_EVENT_BYTES, MAX_EVENTS, Reporter
from facade.reasons import Reason
from facade.wings import ControlSnapshot, Event, IntegrityFailed
from tests.support.clock import FakeClock, settle
from tests.support.ports import Dropped, control_linked, control_served
from tests.support.unix_tap import Tap, tapped


class Heard:
    """A control port of which only reports are asked."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.hook: Callable[[], None] = lambda: None

    def snapshot(self) -> ControlSnapshot:
        return ControlSnapshot()

    def silent_seconds(self) -> float:
        return 0.0

    def report(self, event: Event) -> None:
        self.events.append(event)
        self.hook()

    authorization = closure_manifest = None


def _event(at: float, detail: str = "x") -> IntegrityFailed:
    return IntegrityFailed(at, "h", "r", "d", detail)


async def _eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what happens behind a socket has no event here
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _tapped(heard: Heard, folder: Path) -> AsyncIterator[Tap]:
    async with AsyncExitStack() as stack:
        port: object = heard
        path = await stack.enter_async_context(control_served(port, folder))  # type: ignore[arg-type]
        yield await stack.enter_async_context(tapped(path))


async def test_a_batch_whose_answer_was_lost_counts_once(tmp_path: Path) -> None:
    heard, dropped = Heard(), Dropped()
    async with _tapped(heard, tmp_path) as tap, control_linked(tap.path, dropped=dropped) as port:
        heard.hook = tap.cut  # the batch is taken, the answer never arrives
        events = [_event(float(number)) for number in range(3)]
        for event in events:
            port.report(event)
        await _eventually(lambda: len(heard.events) == 3)
        heard.hook = lambda: None
        port.report(_event(3.0))
        await _eventually(lambda: _event(3.0) in heard.events)
        sent = bytes(tap.to_server)
    assert sent.count(b'"number":1') >= 2, "it was sent again"
    assert heard.events == [*events, _event(3.0)]
    assert dropped.count == 0


async def test_all_batches_go_over_one_exchange_until_it_breaks(tmp_path: Path) -> None:
    heard, dropped = Heard(), Dropped()
    async with _tapped(heard, tmp_path) as tap, control_linked(tap.path, dropped=dropped) as port:
        for number in range(3):
            port.report(_event(float(number)))
            await _eventually(lambda: len(heard.events) == number + 1)  # noqa: B023 - waited for here
        assert tap.to_server.count(b"POST /reports") == 1
        tap.cut()
        port.report(_event(3.0))
        await _eventually(lambda: len(heard.events) == 4)
        assert tap.to_server.count(b"POST /reports") == 2
    assert heard.events == [_event(float(number)) for number in range(4)]
    assert dropped.count == 0


async def test_what_waits_at_the_end_is_sent(tmp_path: Path) -> None:
    heard, dropped = Heard(), Dropped()
    async with _tapped(heard, tmp_path) as tap:
        async with control_linked(tap.path, dropped=dropped) as port:
            port.report(_event(1.0))
        assert heard.events == [_event(1.0)]
    assert dropped.count == 0


async def test_what_cannot_be_sent_holds_up_nothing_and_is_counted(tmp_path: Path) -> None:
    heard, dropped = Heard(), Dropped()
    async with _tapped(heard, tmp_path) as tap, control_linked(tap.path, dropped=dropped) as port:
        port.report(_event(float("nan")))
        port.report(_event(1.0, "x" * MAX_EVENT_BYTES))
        port.report(_event(2.0))
        await _eventually(lambda: heard.events == [_event(2.0)])
    assert dropped.count == 2


async def test_more_than_fits_is_dropped_and_counted(tmp_path: Path) -> None:
    dropped = Dropped()
    caller = Caller(tmp_path / "nobody.sock", "Nobody", Reason.INTERNAL)
    reporter = Reporter(caller, SystemClock(), dropped)
    for number in range(MAX_EVENTS + 5):
        reporter.report(_event(float(number)))
    assert dropped.count == 5
    await reporter.finish()
    assert dropped.count == MAX_EVENTS + 5, "nobody was there to take them"
    await caller.close()


async def test_with_nothing_to_report_nothing_wakes(tmp_path: Path) -> None:
    clock = FakeClock()
    caller = Caller(tmp_path / "nobody.sock", "Nobody", Reason.INTERNAL)
    reporter = Reporter(caller, clock, Dropped())
    task = asyncio.create_task(reporter.run())
    await settle()
    assert clock.sleepers == 0
    reporter.report(_event(1.0))
    await settle()
    assert clock.sleepers == 1
    await clock.run_for(FLUSH_SECONDS)
    assert clock.sleepers == 1, "nobody was there to take it: it tries again by itself"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await caller.close()
