"""One worker's place among the others. A value that the supervisor changes, and nobody else."""

import socket
from dataclasses import dataclass, field
from enum import StrEnum

from facade.workers.process import WorkerProcess
from facade.workers.restarts import SETTLED_SECONDS, Restarts


class Phase(StrEnum):
    """Where a worker stands."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    """Told to finish what it sends, and replaced when it has."""
    DOWN = "down"


class Why(StrEnum):
    """Why a worker was replaced; a metric's label."""

    ENDED = "ended"
    """It ended by itself, or somebody killed it."""
    STUCK = "stuck"
    CUT_OFF = "cut-off"
    NOT_STARTED = "not-started"


@dataclass(slots=True)
class Slot:
    """One worker's place: its socket and order outlive its processes."""

    index: int
    sock: socket.socket
    order: bytes = b""
    process: WorkerProcess | None = None
    phase: Phase = Phase.STARTING
    since: float = 0.0
    restarts: Restarts = field(default_factory=Restarts)
    why: Why = Why.ENDED
    """Of the end that is about to come."""
    ended: str = ""
    current: bool = True
    """Whether it has taken up what changed while it started."""

    def crashing(self, now: float) -> bool:
        """Whether its processes keep ending soon after their start."""
        calm = self.phase is Phase.SERVING and now - self.since >= SETTLED_SECONDS
        return self.restarts.crashing and not calm
