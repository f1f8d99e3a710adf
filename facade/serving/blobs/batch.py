"""Pieces of a blob in memory, and that memory.

Guarantees: a buffer is used again only when it was given back; whoever gives it back sees to it that nobody
reads it any more (`Batch.readers`).
"""

from facade.serving.blobs.port import BLOCK_BYTES

BATCH_BYTES = 4 * BLOCK_BYTES
"""Handed to a thread at once. Half of it costs 10 % more CPU a byte; twice as much needs folios of the page
cache that the kernel often has to look for."""
MAX_SPARE = 8
"""Batches' buffers that are kept for the next transfers."""


class Buffers:
    """Memory of BATCH_BYTES each that is used again: to get it fresh, page by page, costs as much as to
    hash it. Shared by all gatherers of a process.
    """

    def __init__(self, most: int = MAX_SPARE) -> None:
        self._most = most
        self._spare: list[memoryview] = []

    def take(self) -> memoryview:
        """A buffer; what is in it means nothing."""
        return self._spare.pop() if self._spare else memoryview(bytearray(BATCH_BYTES))

    def give(self, buffer: memoryview) -> None:
        """It is in nobody's use any more."""
        if len(self._spare) < self._most and len(buffer) == BATCH_BYTES:
            self._spare.append(buffer)


class Batch:
    """Consecutive bytes of the blob, from offset `start` on, in `buffer`."""

    __slots__ = ("buffer", "count", "readers", "start")

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer
        self.start = 0
        self.count = 0
        self.readers = 0
        """How many hold a view of it just now: their bytes must stay."""

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.start + self.count

    @property
    def bytes(self) -> memoryview:
        """All of it."""
        return self.buffer[: self.count]

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes [start, stop) of the blob, which it must hold."""
        return self.buffer[start - self.start : stop - self.start]

    def space(self, limit: int) -> memoryview:
        """Where the next bytes go, when it shall hold `limit` at most."""
        return self.buffer[self.count : limit]

    def begin(self, start: int) -> None:
        """Forget everything, and go on at `start`."""
        self.start, self.count = start, 0
