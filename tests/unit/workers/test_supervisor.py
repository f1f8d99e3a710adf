"""Workers that end, hang and cannot start, with real processes and a clock of ours."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import Invalid, Unavailable
from facade.workers.process import passed_on
from facade.workers.slot import Phase, Why
from facade.workers.sockets import bind_for_workers
from facade.workers.supervisor import KILL_AFTER_SECONDS, Workers
from tests.support.worker_scripts import COMMAND

PATIENCE_SECONDS = 60.0


class QuickClock(SystemClock):
    """Sleeps only as long as a test can wait, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await asyncio.sleep(0.01)
        await self.hold.wait()


class Counted:
    def __init__(self) -> None:
        self.restarts: list[str] = []
        self.retired: list[int] = []
        self.fresh: list[int] = []
        self.answers: list[bool | Exception] = []

    async def brought_up_to_date(self, index: int) -> bool:
        self.fresh.append(index)
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def worker_restarted(self, why: str) -> None:
        self.restarts.append(why)


class Stand:
    """Some workers and what they noted."""

    def __init__(self, folder: Path, count: int) -> None:
        self.clock = QuickClock()
        self.counted = Counted()
        self.sockets = bind_for_workers("127.0.0.1", 0, count)
        self.notes = [folder / f"notes-{index}" for index in range(count)]
        self.workers = Workers(self.sockets, environ=os.environ, clock=self.clock, command=COMMAND)

    async def start(self, *what: str) -> None:
        orders = [
            json.dumps({"do": do, "notes": str(notes)}).encode() + b"\n"
            for do, notes in zip(what, self.notes, strict=True)
        ]
        await self.workers.launch()
        await self.workers.begin(
            orders,
            observer=self.counted,
            retired=self.counted.retired.append,
            up_to_date=self.counted.brought_up_to_date,
        )

    def noted(self, index: int) -> list[str]:
        return self.notes[index].read_text().split() if self.notes[index].exists() else []

    def pid(self, index: int) -> int:
        process = self.workers.slots[index].process
        assert process is not None
        return process.pid


@contextlib.asynccontextmanager
async def stand(folder: Path, count: int) -> AsyncIterator[Stand]:
    it = Stand(folder, count)
    try:
        yield it
    finally:
        await it.workers.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - processes are no event of ours
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_one_that_is_killed_is_replaced_on_its_socket_and_counted(tmp_path: Path) -> None:
    async with stand(tmp_path, 2) as it:
        await it.start("serve", "serve")
        assert it.workers.serving == 2
        first, other = it.pid(0), it.pid(1)
        os.kill(first, signal.SIGKILL)
        await until(lambda: it.workers.slots[0].restarts.in_a_row == 1)
        await until(lambda: it.workers.serving == 2)
        assert it.pid(0) != first
        assert it.pid(1) == other
        assert it.counted.restarts == ["ended"]
        assert it.counted.retired == [0]
        await until(lambda: it.counted.fresh == [0])
        assert it.workers.slots[0].ended == "SIGKILL"
        assert it.clock.asked == []  # at once
        assert it.workers.crashing == ()


async def test_one_that_is_stuck_is_killed_and_one_cut_off_finishes_first(tmp_path: Path) -> None:
    async with stand(tmp_path, 2) as it:
        await it.start("serve", "serve")
        first, other = it.pid(0), it.pid(1)
        it.clock.hold.clear()
        os.kill(first, signal.SIGSTOP)
        for slot, why in zip(it.workers.slots, (Why.STUCK, Why.CUT_OFF), strict=True):
            it.workers.replace(slot, why)
            it.workers.replace(slot, why)  # once is enough
        assert it.workers.serving == 0
        assert not it.workers.settled
        await until(lambda: it.workers.serving == 2)
        assert sorted(it.counted.restarts) == ["cut-off", "stuck"]
        assert {it.pid(0), it.pid(1)}.isdisjoint({first, other})
        assert it.noted(0) == ["started", "started"]
        assert it.noted(1) == ["started", "drained", "started"]
        os.kill(it.pid(0), signal.SIGKILL)
        await until(lambda: it.counted.restarts[2:] == ["ended"])


async def test_one_cut_off_that_does_not_finish_is_killed(tmp_path: Path) -> None:
    async with stand(tmp_path, 1) as it:
        await it.start("deaf")
        it.workers.replace(it.workers.slots[0], Why.CUT_OFF)
        await until(lambda: it.counted.restarts == ["cut-off"])
        assert KILL_AFTER_SECONDS in it.clock.asked


async def test_nobody_is_replaced_once_all_are_drained(tmp_path: Path) -> None:
    async with stand(tmp_path, 1) as it:
        await it.start("serve")
        slot = it.workers.slots[0]
        draining = asyncio.create_task(it.workers.drain())
        await asyncio.sleep(0)
        it.workers.replace(slot, Why.STUCK)
        await draining
        assert it.noted(0) == ["started", "drained"]


async def test_a_defect_on_the_way_does_not_end_the_replacing(tmp_path: Path) -> None:
    async with stand(tmp_path, 1) as it:
        await it.start("serve")
        slot = it.workers.slots[0]
        slot.order, good = "no bytes", slot.order  # type: ignore[assignment]
        os.kill(it.pid(0), signal.SIGKILL)
        await until(lambda: slot.ended == "not started")
        slot.order = good
        await until(lambda: it.counted.fresh == [0])
        before = it.pid(0)
        os.kill(before, signal.SIGKILL)
        await until(lambda: it.counted.fresh == [0, 0])
        assert it.pid(0) != before


async def test_a_replacement_is_asked_until_it_is_up_to_date_and_nothing_is_settled_before(
    tmp_path: Path,
) -> None:
    async with stand(tmp_path, 2) as it:
        await it.start("serve", "serve")
        await until(lambda: it.workers.settled)
        held: list[bool | Exception] = [Unavailable("no"), RuntimeError("a defect"), *[False] * 50]
        it.counted.answers = [*held, True]
        os.kill(it.pid(0), signal.SIGKILL)
        await until(lambda: it.counted.fresh.count(0) > 5)
        assert it.workers.serving == 2
        assert not it.workers.settled
        await until(lambda: it.workers.settled)
        assert it.counted.fresh == [0] * len([*held, True])


async def test_one_that_keeps_ending_is_given_more_and_more_time_and_takes_no_devices(
    tmp_path: Path,
) -> None:
    async with stand(tmp_path, 2) as it:
        await it.start("die-later", "serve")
        os.kill(it.pid(0), signal.SIGKILL)
        await until(lambda: len(it.clock.asked) >= 4)
        assert it.clock.asked[:4] == [1, 2, 4, 8]
        assert [slot.index for slot in it.workers.crashing] == [0]
        assert it.workers.serving == 1
        address = it.sockets[0].getsockname()
        accepted = 0
        for _ in range(20):  # all of them come to the other one
            _reader, writer = await asyncio.open_connection(*address)
            accepted += await asyncio.to_thread(_accepts, it, 1)
            writer.close()
        assert accepted == 20


def _accepts(it: Stand, index: int) -> int:
    it.sockets[index].settimeout(5)
    connection, _address = it.sockets[index].accept()
    connection.close()
    return 1


async def test_one_that_cannot_start_stops_the_start_in_its_own_words(tmp_path: Path) -> None:
    async with stand(tmp_path, 2) as it:
        with pytest.raises(Invalid, match="The key cannot be read"):
            await it.start("serve", "fail")


async def test_one_that_ends_without_a_word_is_told_with_its_status(tmp_path: Path) -> None:
    async with stand(tmp_path, 1) as it:
        with pytest.raises(Unavailable, match="status 3"):
            await it.start("mute")


async def test_one_that_babbles_is_told_with_its_status(tmp_path: Path) -> None:
    """Nested deeper than Python's JSON parser goes."""
    async with stand(tmp_path, 1) as it:
        with pytest.raises(Unavailable, match="status 5"):
            await it.start("babble")


async def test_the_drain_asks_all_and_leaves_none(tmp_path: Path) -> None:
    async with stand(tmp_path, 2) as it:
        await it.start("serve", "serve")
        pids = [it.pid(0), it.pid(1)]
        await it.workers.drain()
        assert [it.noted(index)[-1] for index in (0, 1)] == ["drained", "drained"]
        assert not any(map(alive, pids))
        assert it.counted.restarts == []
        assert {slot.phase for slot in it.workers.slots} == {Phase.DOWN}


async def test_closing_ends_one_that_does_not_listen(tmp_path: Path) -> None:
    async with stand(tmp_path, 1) as it:
        await it.start("deaf")
        pid = it.pid(0)
        await it.workers.close()
        assert not alive(pid)


async def test_hangup_reaches_all(tmp_path: Path) -> None:
    async with stand(tmp_path, 2) as it:
        await it.start("serve", "serve")
        it.workers.reload()
        await until(lambda: all("reloaded" in it.noted(index) for index in (0, 1)))
        assert it.workers.serving == 2


def test_the_environment_is_a_list_of_names() -> None:
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "OTEL_EXPORTER_OTLP_HEADERS")
    given = {
        **dict.fromkeys(kept, "kept"),
        **dict.fromkeys(("FACADE_REDIS__URL", "FACADE_API_KEY", "AWS_SECRET_ACCESS_KEY"), "not"),
    }
    assert passed_on(given) == dict.fromkeys(kept, "kept")
