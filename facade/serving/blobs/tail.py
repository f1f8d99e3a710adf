"""Following, on the local disk, the partial that another process writes.

Guarantees (pull-path.md, "Single flight"): every byte taken in is tagged as it is read, so that what
was sent can be held against what was verified: the published tags, or a hash of one's own; a lock that
is free tells that the writer is done, and then the file's names tell how it ended. Never writes.

How a writer tells: bytes that were wrong are cut off the file before it loses its name or its lock; a
restart is another file under the same name, and the former one is marked (`partials.is_replaced`). Until
the follower has looked, what is asked for in a file that was cut is `Gone`.
"""

import asyncio
import contextlib
import fcntl
import os
from functools import partial
from pathlib import Path

from facade.errors import Integrity, Upstream
from facade.serving.blobs.diskread import FileReader, read_fully
from facade.serving.blobs.ingest import LocalIngest, Place, resume
from facade.serving.blobs.kept import PIECE_BYTES, KeptBytes
from facade.serving.blobs.partials import is_named, is_replaced, try_lock, unavailable
from facade.serving.blobs.port import BlobKey, Feed
from facade.serving.blobs.refused import noted
from facade.serving.blobs.sharing import Ending, Gone
from facade.serving.blobs.tags import BlockTags, TagWriter
from facade.serving.blobs.threads import run_to_end


class LocalTail:
    """Implements `Tail`. Made by `open_tail`.

    Arguments:
        fd: the partial, open for reading and writing, owned.
    """

    def __init__(self, key: BlobKey, size: int, fd: int, place: Place) -> None:
        self._key = key
        self._size = size
        self._fd = fd
        self._place = place
        self._path = place.layout.partial(key, size)
        self.refusal: Upstream | None = None
        self.cut = asyncio.Event()
        self._over = False
        """Whether nobody looks at it any more."""
        self._kept = KeptBytes(FileReader(fd, place.mode), TagWriter(place.key, key.digest))

    @property
    def have(self) -> int:
        return self._kept.have

    async def read(self, into: memoryview, offset: int) -> int:
        try:
            count = await self._kept.read(into, offset)
        except Integrity:
            self._check_cut()
            raise
        self._check_cut()  # what is still in memory is as void
        return count

    async def advance(self) -> Ending | None:
        # Neither call waits for the disk; a thread is worth its cost only when something happened.
        if os.fstat(self._fd).st_size == self.have:
            if not try_lock(self._fd, fcntl.LOCK_SH):
                return None
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        ending = await run_to_end(self._place.mode.executor, self._advance)
        self._over = ending is not None
        return ending

    async def take_over(self, feed: Feed) -> LocalIngest:
        job = partial(resume, self._key, self._size, feed, self._place, os.dup(self._fd))
        try:
            return await run_to_end(
                self._place.mode.executor, partial(job, self._kept), LocalIngest.abandon
            )
        except BaseException:
            # The lock belongs to both descriptors, and others wait for it.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            raise

    async def replay(self, feed: Feed) -> None:
        self._over = True
        await run_to_end(self._place.mode.executor, partial(self._replay, feed))

    async def close(self, *, keep: bool, refusal: Upstream | None = None) -> None:
        self.abandon()

    def abandon(self) -> None:
        """Close at once."""
        self._over = True
        self._kept.file.close()

    def _check_cut(self) -> None:
        """Raise Gone when the writer took back what it had written, and it is yet to be seen why."""
        if not self._over and os.fstat(self._fd).st_size < self.have:
            self.cut.set()
            raise Gone("What another process wrote a moment ago is gone.")

    def _advance(self) -> Ending | None:
        try:
            if self._take_in():
                return None
            # Shared: other followers look too, and readers of a published file hold it like that.
            if not try_lock(self._fd, fcntl.LOCK_SH):
                return None
            ending = self._judge()
            if ending != "left":
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        except OSError as error:
            raise unavailable(error) from error
        return ending

    def _take_in(self) -> bool:
        """Read some of what is new; whether there was anything."""
        new = min(os.fstat(self._fd).st_size, self._size) - self.have
        if new <= 0:
            return False
        buffer = memoryview(bytearray(min(new, PIECE_BYTES)))
        count = read_fully(self._fd, buffer, self.have)
        self._kept.add(buffer[:count])
        return count > 0

    def _judge(self) -> Ending | None:
        """How it ended; nobody writes it now."""
        status = os.fstat(self._fd)
        found = status.st_size
        if found > self._size:  # no writer of ours does that: what was read of it is worth nothing
            return "void"
        named = is_named(self._fd, self._path)
        if found < self.have:
            # A name that it still has: the writer died before it was done with it.
            return "restarted" if is_replaced(status) or named else "void"
        if self.have < min(found, self._size):
            return None  # it grew before the lock came free
        if is_named(self._fd, self._place.layout.blob(self._key.digest)):
            return self._compare()
        if not named:
            if is_replaced(status):
                return "restarted"
            self.refusal = None if self.have else noted(self._fd)
            return "given up" if self.refusal is None else "refused"
        if try_lock(self._fd, fcntl.LOCK_EX) and is_named(self._fd, self._path):
            return "left"
        return None  # another follower was quicker

    def _compare(self) -> Ending:
        beside = self._place.layout.tags(self._key.digest)
        with contextlib.suppress(OSError):
            for sidecar in self._place.sidecars.found(self._fd, beside, self._size):
                with contextlib.suppress(Integrity):
                    tags = BlockTags.parse(self._place.key, self._key.digest, sidecar)
                    return "complete" if self._kept.tags.agree(tags) else "void"
        return "given up"  # who follows hashes by himself then

    def _replay(self, feed: Feed) -> None:
        try:
            self._kept.tell(feed, TagWriter(self._place.key, self._key.digest))
        except OSError as error:
            raise unavailable(error) from error


def open_tail(key: BlobKey, size: int, place: Place) -> LocalTail | None:
    """Follow the partial of `key`, None when there is none. Blocks. Raises Unavailable."""
    path: Path = place.layout.partial(key, size)
    try:
        return LocalTail(key, size, os.open(path, os.O_RDWR | os.O_CLOEXEC), place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unavailable(error) from error


def abandon_tail(tail: LocalTail | None) -> None:
    """Close what nobody has got."""
    if tail is not None:
        tail.abandon()
