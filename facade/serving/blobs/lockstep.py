"""Serving without a place to keep: readers and the transfer move together through a window.

Guarantees: memory is bounded by the window; no reader holds up the others longer than
`lag_seconds`: then it is cut (its runtime resumes by Range).
"""

import asyncio
from collections.abc import Collection
from typing import Self

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.blobs.audience import Reader
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.pulse import Pulse
from facade.serving.blobs.window import Window


class Lockstep:
    """The window of one transfer, from the byte at which its store gave up.

    Arguments:
        begins: that byte's offset; those before it are still in the partial file.
        readers: the transfer's readers, live.
        holdback_bytes: the window keeps at least as much.
        lag_seconds: the longest that one batch waits for slow readers.
    """

    def __init__(
        self,
        begins: int,
        readers: Collection[Reader],
        holdback_bytes: int,
        lag_seconds: float,
    ) -> None:
        self.begins = begins
        self.moved = Pulse()
        """Fires when a reader moved or left."""
        self._window = Window(begins, holdback_bytes)
        self._readers = readers
        self._lag_seconds = lag_seconds

    @classmethod
    def of(cls, begins: int, readers: Collection[Reader], limits: TransferLimits) -> Self:
        """One as patient, and with as much held back, as `limits` say."""
        return cls(begins, readers, limits.holdback_bytes, limits.lag_seconds)

    @property
    def holds_start(self) -> bool:
        """Whether no byte has been dropped yet."""
        return self._window.start == self.begins

    @property
    def keep(self) -> int:
        """The longest end of an answer that can wait here for the verdict, in bytes."""
        return self._window.keep

    def append(self, data: memoryview) -> None:
        """The next bytes came."""
        self._window.append(data)

    def read(self, into: memoryview, offset: int) -> int:
        """Like `Transfer.read`, for offsets from `begins` on."""
        if offset < self._window.start:
            raise _lagging()
        return self._window.read(into, offset)

    def has_room(self, count: int) -> bool:
        """Whether `count` bytes more fit, once what everybody has read is dropped."""
        if not self._window.has_room(count):
            needed = min((reader.position for reader in self._readers), default=self._window.end)
            self._window.drop_before(needed)
        return self._window.has_room(count)

    async def wait_room(self, count: int) -> None:
        """Return when they fit, having cut those who held it up for too long."""
        try:
            async with asyncio.timeout(self._lag_seconds):
                while not self.has_room(count):
                    await self.moved.wait()
        except TimeoutError:
            keep_from = self._window.end - self._window.keep
            for reader in [one for one in self._readers if one.position < keep_from]:
                reader.cut(_lagging())
            self._window.drop_before(keep_from)


def _lagging() -> Unavailable:
    return Unavailable(
        "The facade has no room to keep this, and this pull is too slow to go along with the others: "
        "ask for the rest again.",
        reason=Reason.OVERLOADED,
        retry_after=1.0,
    )
