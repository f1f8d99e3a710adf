"""Who reads a transfer, and what happens when nobody does any more.

Guarantees: readers come and go without the transfer's noticing; `deserted` is called once the
grace period has passed without any reader, never while there is one.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from facade.clock import Clock
from facade.errors import FacadeError
from facade.serving.blobs.pulse import Pulse


class Reader(Protocol):
    """What a transfer knows of a stream that reads it."""

    position: int
    """The next byte it needs from there."""

    def cut(self, error: FacadeError) -> None:
        """Make it raise `error`, and leave."""
        ...


class Audience:
    """The readers of one transfer. Loop only.

    Arguments:
        grace_seconds: how long an abandoned transfer is kept.
        is_needless: whether the transfer may be ended when nobody reads it.
        deserted: told when it may be ended now.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        grace_seconds: float,
        is_needless: Callable[[], bool],
        deserted: Callable[[], None],
    ) -> None:
        self.readers: set[Reader] = set()
        self.gone = Pulse()
        """Fires when the last reader left."""
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._is_needless = is_needless
        self._deserted = deserted
        self._grace: asyncio.Task[None] | None = None

    def attach(self, reader: Reader) -> None:
        """A stream reads from now on."""
        self.readers.add(reader)
        self.close()

    def detach(self, reader: Reader) -> None:
        """It left. Calling again does nothing."""
        self.readers.discard(reader)
        if not self.readers:
            self.gone.fire()
            self.look()

    def look(self) -> None:
        """See whether anybody is there; if not, and it is needless, the grace period begins."""
        if not self.readers and self._grace is None and self._is_needless():
            self._grace = asyncio.create_task(self._wait())

    def close(self) -> None:
        """End the grace period, if one runs."""
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    async def _wait(self) -> None:
        await self._clock.sleep(self._grace_seconds)
        self._grace = None
        if not self.readers:
            self._deserted()
