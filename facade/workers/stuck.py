"""Finds workers that run and yet are of no use, and has them replaced.

Guarantees: a worker whose loop gives no sign of life (`signs`) in `BAD_ROUNDS` rounds in a row, about ten
seconds, is killed and replaced; one that says in `CUT_OFF_ROUNDS` that the control side does not reach it, though
this process runs, is replaced too while another one hears it, or once it refuses devices anyway for
that reason. One that starts or finishes is let alone, and nothing is held against anybody for a
time in which this process did not run itself (a machine asleep, a stopped group, a blocked loop).
"""

from dataclasses import dataclass

import structlog

from facade.clock import Clock, on_the_beat
from facade.workers.process import WorkerProcess
from facade.workers.signs import INTERVAL_SECONDS
from facade.workers.slot import Phase, Slot, Why
from facade.workers.supervisor import Workers

log = structlog.get_logger(__name__)

BAD_ROUNDS = 10
CUT_OFF_ROUNDS = 5
"""Longer than it takes to find the control side again once it runs on."""
LATE_SECONDS = 5.0
"""A round that took so long, instead of `INTERVAL_SECONDS`, says that this process itself did not run."""
CUT_OFF_SECONDS = 60.0
"""How long the control side may be silent for one worker while another one hears it."""


@dataclass(slots=True)
class Seen:
    """What the rounds so far showed of a worker's process.

    Arguments:
        missed: rounds without a sign of life, in a row.
        silent: how many seconds ago it had heard the control side, at its last sign.
        cut_off: rounds in a row in which that was too long ago.
    """

    slot: Slot
    process: WorkerProcess
    missed: int = 0
    silent: float | None = None
    cut_off: int = 0

    @property
    def present(self) -> bool:
        """Whether its last sign counts. It is as often late for a round, which the next has two of, as not."""
        return self.silent is not None and self.missed < 2

    def heard_within(self, seconds: float) -> bool:
        """Whether it hears the control side."""
        return self.present and self.silent is not None and self.silent < seconds


class StuckWatch:
    """Looks at all workers' signs of life once a second; `run()` is a task of its own.

    Arguments:
        refuses_after: seconds of the control side's silence after which a worker refuses devices.
    """

    def __init__(self, workers: Workers, *, refuses_after: float, clock: Clock) -> None:
        self._workers = workers
        self._refuses_after = refuses_after
        self._clock = clock
        self._seen: dict[int, Seen] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock.monotonic()
            await on_the_beat(self._clock, INTERVAL_SECONDS)
            self._look()
            if (seconds := self._clock.monotonic() - began) >= LATE_SECONDS:
                log.warning("workers_not_watched", seconds=seconds)
                self._seen.clear()
            else:
                self._judge()

    def _look(self) -> None:
        """Take up the signs since the last look."""
        before, self._seen = self._seen, {}
        for slot in self._workers.slots:
            process = slot.process
            if process is None or slot.phase is not Phase.SERVING:
                continue
            seen = before.get(slot.index)
            if seen is None or seen.process is not process:
                seen = Seen(slot, process)
            if (silent := process.sign()) is None:
                seen.missed += 1
            else:
                seen.missed, seen.silent = 0, silent
            self._seen[slot.index] = seen

    def _judge(self) -> None:
        soon = min(CUT_OFF_SECONDS, self._refuses_after)
        reached = any(seen.heard_within(soon) for seen in self._seen.values())
        limit = soon if reached else self._refuses_after
        for index, seen in self._seen.items():
            seen.cut_off = seen.cut_off + 1 if seen.present and not seen.heard_within(limit) else 0
            if seen.missed >= BAD_ROUNDS:
                why = Why.STUCK
            elif seen.cut_off >= CUT_OFF_ROUNDS:
                why = Why.CUT_OFF
            else:
                continue
            log.error("worker_of_no_use", worker=index, pid=seen.process.pid, reason=why)
            self._workers.replace(seen.slot, why)
