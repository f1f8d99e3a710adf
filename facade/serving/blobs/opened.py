"""An object of the local store, open: shared by its readers, and in use for all processes to see.

Guarantees: while an object has readers its file bears a shared lock (`flock`), so that no process
evicts it; the lock is taken and given back with the first and the last reader, never per block. What
another process removed, replaced or set aside is noticed when it is taken again. Every block is checked
before it is handed out.
"""

import fcntl
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from facade.clock import Clock
from facade.errors import Integrity
from facade.serving.blobs.diskread import FileReader
from facade.serving.blobs.partials import try_lock
from facade.serving.blobs.port import BLOCK_BYTES, Busy
from facade.serving.blobs.tags import BlockTags

log = structlog.get_logger(__name__)

LOCKED_SECONDS = 2.0
"""How long an object that another process publishes or removes just now is waited for; it takes milliseconds.
One that hangs in the middle of it must hang nobody here: then the object counts as absent."""
LOCKED_PAUSE_SECONDS = 0.01

_Opened = TypeVar("_Opened")


async def when_unlocked(attempt: Callable[[], Awaitable[_Opened]], clock: Clock) -> _Opened | None:
    """What `attempt` gives once it does not raise Busy; meanwhile no thread waits. None = still locked."""
    until = clock.monotonic() + LOCKED_SECONDS
    while True:
        try:
            return await attempt()
        except Busy:
            if clock.monotonic() >= until:
                log.warning("cached_object_locked")
                return None
            await clock.sleep(LOCKED_PAUSE_SECONDS)


class OpenObject:
    """The file with its tags. Loop only.

    Arguments:
        file: owned.
    """

    def __init__(self, file: FileReader, tags: BlockTags) -> None:
        self.file = file
        self.tags = tags
        self.users = 0
        self.retired = False
        self._mode = os.fstat(file.fd).st_mode

    def take(self) -> bool:
        """Count one more reader; False when it is no longer the store's, or about to be removed.

        None of the calls waits, for the disk or for anybody.
        """
        if not self.users and not try_lock(self.file.fd, fcntl.LOCK_SH):
            return False
        self.users += 1
        # Only now: whoever removes it holds the other lock meanwhile.
        status = os.fstat(self.file.fd)
        # Setting aside changes the mode: the file keeps its one name then.
        kept = status.st_nlink > 0 and status.st_mode == self._mode
        if kept and status.st_size == self.tags.size:
            return True
        self.give_back()
        return False

    def give_back(self) -> None:
        """One reader less."""
        self.users -= 1
        if not self.users and not self.retired:
            fcntl.flock(self.file.fd, fcntl.LOCK_UN)
        self._close_if_done()

    def retire(self) -> None:
        """Close it with its last reader."""
        self.retired = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self.retired and not self.users:
            self.file.close()


class LocalReader:
    """Implements `BlobReader`: one block at a time into a buffer of its own.

    Arguments:
        shared: taken for this reader.
        closed: told after closing.
    """

    def __init__(self, shared: OpenObject, closed: Callable[[], None]) -> None:
        self._object = shared
        self._closed = closed
        self._file = shared.file
        self._tags = shared.tags
        self.size = shared.tags.size
        self.origin = shared.tags.origin
        self._buffer = memoryview(bytearray(min(self.size, BLOCK_BYTES)))
        self._open = True

    async def read(self, offset: int, length: int) -> memoryview:
        index = offset // BLOCK_BYTES
        block = self._space(index)
        try:
            found = await self._file.fill(block, index * BLOCK_BYTES)
        except OSError as error:
            raise Integrity(f"A cached block cannot be read: {error.strerror}.") from error
        if found != len(block):
            raise Integrity("A cached file is cut short.")
        return self._checked(block, offset, length)

    def read_now(self, offset: int, length: int) -> memoryview | None:
        index = offset // BLOCK_BYTES
        block = self._space(index)
        try:
            found = self._file.fill_now(block, index * BLOCK_BYTES)
        except OSError:
            return None  # `read` says what is wrong
        return self._checked(block, offset, length) if found == len(block) else None

    def _space(self, index: int) -> memoryview:
        count = min(BLOCK_BYTES, self.size - index * BLOCK_BYTES)
        return self._buffer if count == len(self._buffer) else self._buffer[:count]

    def _checked(self, block: memoryview, offset: int, length: int) -> memoryview:
        index, inside = divmod(offset, BLOCK_BYTES)
        self._tags.check(index, block)
        if inside == 0 and length >= len(block):
            return block
        return block[inside : inside + length]

    def close(self) -> None:
        if self._open:
            self._open = False
            self._object.give_back()
            self._closed()
