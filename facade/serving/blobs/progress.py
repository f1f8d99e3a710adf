"""How far a transfer is: what its readers look at, and what wakes them.

Guarantees nothing by itself: `transfer` sets it.
"""

import asyncio

from facade.errors import FacadeError
from facade.serving.blobs.lockstep import Lockstep
from facade.serving.blobs.port import Outcome
from facade.serving.blobs.pulse import Pulse


class Progress:
    """The state of one transfer. Loop only."""

    def __init__(self) -> None:
        self.received = 0
        """Bytes that readers may read, as far as the verdict lets them."""
        self.landed_bytes = 0
        """Those that were hashed, and kept if they could be; the rest is in the gatherer's memory."""
        self.generation = 0
        """Counts fetches from zero after a mismatch: bytes of former ones are void."""
        self.settled = False
        """Length and digest matched."""
        self.error: FacadeError | None = None
        self.ending = False
        """It takes no new readers; `over` tells when the next may start."""
        self.over = asyncio.Event()
        self.outcome: Outcome = "miss"
        """Where the first bytes come from, once `placed`."""
        self.placed = asyncio.Event()
        self.progress = Pulse()
        """Fires whenever anything changed."""
        self.changed = Pulse()
        """Fires on verdict, failure, restart, and when the store gave up."""
        self.lockstep: Lockstep | None = None

    def place(self, outcome: Outcome) -> None:
        """Tell where the bytes come from; what is told first counts."""
        if not self.placed.is_set():
            self.outcome = outcome
            self.placed.set()

    def starts_over(self) -> None:
        """What could be read is void; there is nothing for now."""
        self.received = self.landed_bytes = 0
        self.generation += 1
        self._fire()

    def _settle(self) -> None:
        """Length and digest matched. Calling again does nothing."""
        if not self.settled and self.error is None:
            self.settled = True
            self._fire()

    def _fail(self, error: FacadeError) -> None:
        self.ending = True
        if self.error is None and not self.settled:
            self.error = error
        self._fire()

    def _fire(self) -> None:
        self.progress.fire()
        self.changed.fire()
