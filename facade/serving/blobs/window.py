"""A bounded piece of a blob in memory, for when the store cannot take it.

Guarantees: holds one gapless range of bytes, never more than its capacity; bytes leave it only
at its start.
"""

from collections import deque

from facade.serving.blobs.batch import BATCH_BYTES
from facade.serving.blobs.port import BLOCK_BYTES

MIN_KEEP_BYTES = BLOCK_BYTES


class Window:
    """Bytes [start, end) of a blob.

    Arguments:
        start: offset of the first byte to come.
        keep: bytes that stay when a batch comes in, whatever else is dropped.
    """

    def __init__(self, start: int, keep: int) -> None:
        self.start = start
        self.end = start
        self.keep = max(keep, MIN_KEEP_BYTES)
        self._parts: deque[bytes] = deque()

    def append(self, data: memoryview) -> None:
        """Take the next bytes."""
        self._parts.append(bytes(data))
        self.end += len(data)

    def has_room(self, count: int) -> bool:
        """Whether `count` bytes more stay within the capacity."""
        return self.end - self.start + count <= self.keep + 2 * BATCH_BYTES

    def drop_before(self, offset: int) -> None:
        """Forget parts that end at or before `offset`."""
        while self._parts and self.start + len(self._parts[0]) <= offset:
            self.start += len(self._parts.popleft())

    def read(self, into: memoryview, offset: int) -> int:
        """Copy bytes from `offset` into `into`; returns how many, at least one.

        `offset` must lie in [start, end) and `into` must not be empty.
        """
        at = self.start
        for part in self._parts:
            if offset < at + len(part):
                piece = part[offset - at : offset - at + len(into)]
                into[: len(piece)] = piece
                return len(piece)
            at += len(part)
        raise IndexError(offset)
