"""Workers that run and are of no use, with a clock of ours: who is replaced, and who is let alone."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest

from facade.workers.process import WorkerProcess
from facade.workers.slot import Phase, Slot, Why
from facade.workers.sockets import bind_for_workers
from facade.workers.stuck import BAD_ROUNDS, CUT_OFF_ROUNDS, CUT_OFF_SECONDS, StuckWatch
from facade.workers.supervisor import Workers
from tests.support.clock import FakeClock

REFUSES_AFTER = 900.0


class Process:
    """As much of one as is looked at: it gives signs, or does not."""

    pid = 4711

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    def sign(self) -> float | None:
        self._worker.looks += 1
        return self._worker.silent


class Worker:
    """What a worker says of the control side, whichever process it is."""

    def __init__(self) -> None:
        self.silent: float | None = 0.5
        self.looks = 0


class Crew(Workers):
    """Notes whom it should replace, and does so."""

    def __init__(self, workers: Sequence[Worker], clock: FakeClock) -> None:
        sockets = bind_for_workers("127.0.0.1", 0, len(workers))
        super().__init__(sockets, environ=os.environ, clock=clock)
        self._them = workers
        self.replaced: list[tuple[int, Why]] = []
        for slot in self.slots:
            slot.sock.close()
            self.fresh(slot)

    def fresh(self, slot: Slot) -> None:
        slot.process, slot.phase = (
            cast("WorkerProcess", Process(self._them[slot.index])),
            Phase.SERVING,
        )

    def replace(self, slot: Slot, why: Why) -> None:
        self.replaced.append((slot.index, why))
        self.fresh(slot)


class Node:
    def __init__(self, count: int = 3) -> None:
        self.clock = FakeClock()
        self.workers = [Worker() for _ in range(count)]
        self.crew = Crew(self.workers, self.clock)
        self.watch = StuckWatch(self.crew, refuses_after=REFUSES_AFTER, clock=self.clock)


@contextlib.asynccontextmanager
async def watching(node: Node) -> AsyncIterator[Node]:
    task = asyncio.create_task(node.watch.run())
    await node.clock.wait_for_sleepers()
    try:
        yield node
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_one_that_gives_no_sign_for_ten_seconds_is_replaced_and_only_that_one() -> None:
    async with watching(Node()) as node:
        node.workers[1].silent = None
        await node.clock.run_for(BAD_ROUNDS - 1)
        assert node.crew.replaced == []
        await node.clock.run_for(1)
        assert node.crew.replaced == [(1, Why.STUCK)]
        node.workers[1].silent = 0.5
        await node.clock.run_for(60)
        assert len(node.crew.replaced) == 1


async def test_one_that_gives_a_sign_now_and_then_is_let_alone() -> None:
    async with watching(Node()) as node:
        for _ in range(5):
            node.workers[0].silent = None
            await node.clock.run_for(BAD_ROUNDS - 1)
            node.workers[0].silent = 0.5
            await node.clock.run_for(1)
        assert node.crew.replaced == []


async def test_nothing_is_held_against_it_when_the_parent_did_not_run_itself() -> None:
    """A machine asleep, a stopped group: all stopped, all go on, and the worker takes its time."""
    async with watching(Node()) as node:
        node.workers[0].silent = None
        for _ in range(5):
            await node.clock.run_for(BAD_ROUNDS - 2)
            node.clock.advance(600)
        assert node.crew.replaced == []
        await node.clock.run_for(BAD_ROUNDS + 1)
        assert node.crew.replaced == [(0, Why.STUCK)]


async def test_a_jump_of_the_wall_clock_is_nobodys_fault() -> None:
    async with watching(Node()) as node:
        node.workers[0].silent = None
        await node.clock.run_for(BAD_ROUNDS - 2)
        node.clock.shift(86_400)
        await node.clock.run_for(1)
        node.clock.shift(-2 * 86_400)
        assert node.crew.replaced == []
        await node.clock.run_for(1)
        assert node.crew.replaced == [(0, Why.STUCK)]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.LEAVING, Phase.DOWN])
async def test_one_that_starts_drains_or_is_down_is_let_alone(phase: Phase) -> None:
    async with watching(Node()) as node:
        node.workers[2].silent = None
        node.crew.slots[2].phase = phase
        looks = node.workers[2].looks
        await node.clock.run_for(3 * BAD_ROUNDS)
        assert node.crew.replaced == []
        assert node.workers[2].looks == looks


async def test_what_its_predecessor_missed_is_not_held_against_a_replacement() -> None:
    async with watching(Node()) as node:
        node.workers[0].silent = None
        await node.clock.run_for(BAD_ROUNDS - 1)
        node.crew.fresh(node.crew.slots[0])  # it crashed meanwhile
        await node.clock.run_for(BAD_ROUNDS - 1)
        assert node.crew.replaced == []


async def test_one_cut_off_from_the_control_side_is_replaced_while_another_hears_it() -> None:
    async with watching(Node()) as node:
        node.workers[2].silent = CUT_OFF_SECONDS - 0.1
        await node.clock.run_for(3 * BAD_ROUNDS)
        assert node.crew.replaced == []
        node.workers[2].silent = CUT_OFF_SECONDS
        await node.clock.run_for(CUT_OFF_ROUNDS - 1)
        assert node.crew.replaced == []
        await node.clock.run_for(1)
        assert node.crew.replaced == [(2, Why.CUT_OFF)]


async def test_a_sign_that_comes_a_round_late_does_not_begin_the_count_anew() -> None:
    """Both ends write and look at the same moment, so either may be first."""
    async with watching(Node(2)) as node:
        cut_off, other = node.workers
        for _ in range(CUT_OFF_ROUNDS):
            cut_off.silent, other.silent = CUT_OFF_SECONDS, None
            await node.clock.run_for(1)
            cut_off.silent, other.silent = None, 0.5
            await node.clock.run_for(1)
        assert node.crew.replaced == [(0, Why.CUT_OFF)]


async def test_when_none_hears_it_none_is_replaced_before_it_refuses_devices_anyway() -> None:
    """What keeps all of them from it would keep their replacements from it, and from starting."""
    async with watching(Node(2)) as node:
        for worker in node.workers:
            worker.silent = REFUSES_AFTER - 0.1
        await node.clock.run_for(3 * BAD_ROUNDS)
        assert node.crew.replaced == []
        for worker in node.workers:
            worker.silent = REFUSES_AFTER
        await node.clock.run_for(CUT_OFF_ROUNDS)
        assert node.crew.replaced == [(0, Why.CUT_OFF), (1, Why.CUT_OFF)]
