"""A partial file of the local store: bytes on their way in, readable while they come.

Guarantees: one writer per key over all processes (`flock` on the partial, which dies with its
process); what a reader gets is what was written (the tags of whole blocks and the bytes of the last
one are kept in memory); `publish` = tags first, fsync, rename, fsync the folder. Bytes of a partial are nobody's
content. Not guaranteed: that bytes found after a power loss are those once written; the
caller's verdict decides.
"""

import asyncio
import contextlib
import os
from concurrent.futures import Executor

import structlog

from facade.errors import Integrity, Unavailable
from facade.serving.blobs.diskread import FileReader, ReadMode, read_fully
from facade.serving.blobs.layout import Layout, move_durably, write_all, write_synced
from facade.serving.blobs.partials import Partials, lock_partial, unavailable
from facade.serving.blobs.port import BLOCK_BYTES, BlobKey, Feed
from facade.serving.blobs.tags import TagKey, TagWriter

log = structlog.get_logger(__name__)

_REPLAY_BYTES = 4 * BLOCK_BYTES


class LocalIngest:
    """Implements `Ingest`. Made by `LocalStore.ingest`; owns the descriptors and the lock.

    Arguments:
        lock_fd: the partial, locked, open for writing.
        size: bytes of the whole blob.
        partials: where it was reserved; told when it is over.
    """

    def __init__(
        self,
        key: BlobKey,
        size: int,
        lock_fd: int,
        layout: Layout,
        tag_key: TagKey,
        mode: ReadMode,
        partials: Partials,
    ) -> None:
        self._key = key
        self._size = size
        self._layout = layout
        self._path = layout.partial(key)
        self._tags = TagWriter(tag_key, key.digest)
        self._partials = partials
        self._fd = lock_fd
        self._file = FileReader(os.open(self._path, os.O_RDONLY), mode)
        self._executor: Executor = mode.executor
        self._published = False
        self.have = 0

    def replay(self, feed: Feed) -> None:
        """Take over what a former process left, telling it to `feed`. Blocks. Raises OSError."""
        found = os.fstat(self._fd).st_size
        if found > self._size:
            os.ftruncate(self._fd, 0)
            return
        buffer = memoryview(bytearray(min(_REPLAY_BYTES, found)))
        while self.have < found:
            count = read_fully(self._fd, buffer[: found - self.have], self.have)
            if count == 0:
                break
            feed(buffer[:count])
            self._tags.update(buffer[:count])
            self.have += count

    def write(self, data: memoryview) -> None:
        try:
            write_all(self._fd, data, self.have)
        except OSError as error:
            raise unavailable(error) from error
        self._tags.update(data)
        self.have += len(data)

    async def read(self, into: memoryview, offset: int) -> int:
        index, inside = divmod(offset, BLOCK_BYTES)
        count = min(len(into), self.have - offset, BLOCK_BYTES - inside)
        if count <= 0:
            raise Integrity("Bytes kept a moment ago are gone.")
        latest = self._tags.latest(index, inside, inside + count)
        if latest is not None:
            into[:count] = latest
            return count
        # It may have gone to the disk and come back: only whole blocks can be checked.
        block = into[:count] if count == BLOCK_BYTES else memoryview(bytearray(BLOCK_BYTES))
        try:
            found = await self._file.fill(block, index * BLOCK_BYTES)
        except OSError as error:
            raise Integrity(f"Bytes kept a moment ago cannot be read: {error.strerror}.") from error
        if found != BLOCK_BYTES:
            raise Integrity("Bytes kept a moment ago are gone.")
        self._tags.check(index, block)
        if count < BLOCK_BYTES:
            into[:count] = block[inside : inside + count]
        return count

    def restart(self) -> None:
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise unavailable(error) from error
        self._tags.restart()
        self.have = 0

    def publish(self) -> None:
        digest = self._key.digest
        draft = self._path.with_suffix(".tags")
        try:
            os.fsync(self._fd)
            write_synced(draft, self._tags.sidecar(self.have, str(self._key.host)))
            move_durably(
                (draft, self._layout.tags(digest)), (self._path, self._layout.blob(digest))
            )
        except OSError as error:
            with contextlib.suppress(OSError):  # a folder that became read-only keeps it
                draft.unlink(missing_ok=True)
            raise unavailable(error) from error
        self._published = True
        self._unlock()

    async def close(self, *, keep: bool) -> None:
        self._file.close()
        if self._fd >= 0:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._let_go, keep)

    def abandon(self) -> None:
        """Close at once, keeping the bytes, when nobody has it yet."""
        self._file.close()
        self._unlock()

    def _let_go(self, keep: bool) -> None:
        try:
            if not self._published and not (keep and self.have):
                self._path.unlink(missing_ok=True)
        except OSError as error:  # the sweep finds it when the disk lets go of it
            log.warning("partial_not_removed", error=error.strerror)
        finally:
            self._unlock()

    def _unlock(self) -> None:
        self._partials.release(self._path)
        os.close(self._fd)
        self._fd = -1


def open_ingest(
    key: BlobKey,
    size: int,
    feed: Feed,
    layout: Layout,
    tag_key: TagKey,
    mode: ReadMode,
    partials: Partials,
) -> LocalIngest:
    """Start or resume an ingest, as `BlobStore.ingest` says. Blocks. Raises Unavailable."""
    path = layout.partial(key)
    fd = lock_partial(path)
    try:
        partials.reserve(path, size)
    except Unavailable:
        os.close(fd)
        raise
    try:
        ingest = LocalIngest(key, size, fd, layout, tag_key, mode, partials)
    except OSError as error:
        partials.release(path)
        os.close(fd)
        raise unavailable(error) from error
    try:
        ingest.replay(feed)
    except OSError as error:
        ingest.abandon()
        raise unavailable(error) from error
    return ingest
