"""Finds workers that run and yet are of no use, and has them replaced.

Guarantees: a worker whose loop gives no sign of life in `BAD_ROUNDS` rounds in a row, about ten seconds,
is killed and replaced; one that says in `CUT_OFF_ROUNDS` that the control side does not reach it, though
this process runs, is replaced too while another one hears it, or once it refuses devices anyway for
that reason. One that starts or finishes is let alone, and nothing is held against anybody for a
time in which this process did not run itself (a machine asleep, a stopped group, a blocked loop). Only
silence counts: a worker whose socket is gone may serve well, and readiness tells.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from facade.clock import Clock, on_the_beat
from facade.errors import FacadeError
from facade.workers.process import WorkerProcess
from facade.workers.slot import Phase, Slot, Why
from facade.workers.supervisor import Workers

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 1.0
ANSWER_SECONDS = 1.0
"""A loop that serves is late by milliseconds, one under load by tenths of a second."""
BAD_ROUNDS = 10
CUT_OFF_ROUNDS = 5
"""Longer than it takes to find the control side again once it runs on."""
LATE_SECONDS = 3.0
"""A round that took this much longer than it may says that this process itself did not run."""
CUT_OFF_SECONDS = 60.0
"""How long the control side may be silent for one worker while another one hears it."""

_ROUNDS = {Why.STUCK: BAD_ROUNDS, Why.CUT_OFF: CUT_OFF_ROUNDS}


class Pulse(Protocol):
    """A worker's port (`facade.link`)."""

    async def pulse(self) -> float:
        """How many seconds ago it heard the control side. Raises FacadeError."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What one round showed of one worker.

    Arguments:
        silent: how many seconds ago it heard the control side; None: it did not answer.
    """

    slot: Slot
    process: WorkerProcess
    silent: float | None


@dataclass(frozen=True, slots=True)
class Bad:
    """How often in a row a worker's process was found bad, and how."""

    process: WorkerProcess
    why: Why
    rounds: int


class StuckWatch:
    """Asks all workers once a second; `run()` is a task of its own.

    Arguments:
        ports: by the workers' order.
        refuses_after: seconds of the control side's silence after which a worker refuses devices.
    """

    def __init__(
        self, workers: Workers, ports: Sequence[Pulse], *, refuses_after: float, clock: Clock
    ) -> None:
        self._workers = workers
        self._ports = ports
        self._refuses_after = refuses_after
        self._clock = clock
        self._bad: dict[int, Bad] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock.monotonic()
            found = await self._round()
            if self._late(began):
                continue
            self._judge(found)
            if self._clock.monotonic() - began < INTERVAL_SECONDS:
                await on_the_beat(self._clock, INTERVAL_SECONDS)
            self._late(began)

    def _late(self, began: float) -> bool:
        """Whether this process did not run since; then nothing that was seen counts."""
        seconds = self._clock.monotonic() - began
        if seconds < INTERVAL_SECONDS + ANSWER_SECONDS + LATE_SECONDS:
            return False
        log.warning("workers_not_watched", seconds=seconds)
        self._bad.clear()
        return True

    async def _round(self) -> list[Seen]:
        found = await asyncio.gather(*map(self._ask, self._workers.slots, self._ports))
        return [seen for seen in found if seen is not None]

    async def _ask(self, slot: Slot, port: Pulse) -> Seen | None:
        """None: there is nobody to ask."""
        process = slot.process
        if process is None or slot.phase is not Phase.SERVING:
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                silent = await port.pulse()
        except TimeoutError:
            return Seen(slot, process, None)
        except FacadeError:
            return None
        return Seen(slot, process, silent)

    def _judge(self, found: Sequence[Seen]) -> None:
        soon = min(CUT_OFF_SECONDS, self._refuses_after)
        reached = any(seen.silent is not None and seen.silent < soon for seen in found)
        limit = soon if reached else self._refuses_after
        bad: dict[int, Bad] = {}
        for seen in found:
            if seen.silent is None:
                why = Why.STUCK
            elif seen.silent >= limit:
                why = Why.CUT_OFF
            else:
                continue
            index, before = seen.slot.index, self._bad.get(seen.slot.index)
            rounds = 1
            if before is not None and (before.process, before.why) == (seen.process, why):
                rounds += before.rounds
            if rounds >= _ROUNDS[why] and seen.slot.process is seen.process:
                log.error("worker_of_no_use", worker=index, pid=seen.process.pid, reason=why)
                self._workers.replace(seen.slot, why)
            else:
                bad[index] = Bad(seen.process, why, rounds)
        self._bad = bad
