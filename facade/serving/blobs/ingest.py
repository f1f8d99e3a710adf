"""A partial file of the local store: bytes on their way in, readable while they come.

Guarantees: one writer per key and size over all processes (`flock` on the partial, which dies with
its process); what a reader gets is what was written (the tags of whole blocks and the bytes of the last
one are kept in memory); `publish` = fsync, tags first, rename, fsync the folder, without which it is
published too. Bytes of a partial are nobody's content. Whoever follows the file can tell how it ended
(`tail`). Not guaranteed: that bytes found after a power loss are those once written; the caller's
verdict decides.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from facade.errors import Integrity, Unavailable, Upstream
from facade.serving.blobs.diskread import FileReader, ReadMode, read_fully
from facade.serving.blobs.kept import PIECE_BYTES, KeptBytes
from facade.serving.blobs.layout import (
    Layout,
    give_back,
    move,
    reserve,
    sync_folder,
    write_all,
    write_new,
)
from facade.serving.blobs.partials import (
    Partials,
    is_named,
    lock_partial,
    replace_partial,
    unavailable,
)
from facade.serving.blobs.port import BlobKey, Feed
from facade.serving.blobs.refused import note
from facade.serving.blobs.sidecars import Sidecars
from facade.serving.blobs.tags import TagKey, TagWriter
from facade.serving.blobs.threads import run_to_end

log = structlog.get_logger(__name__)

_RESERVED_BYTES = 256 * 1024
"""From this size on room is set aside on the disk at once."""


@dataclass(frozen=True, slots=True)
class Place:
    """What all partials of a store share.

    Arguments:
        layout, key, mode, sidecars: the store's.
        partials: where an ingest is reserved, and told when it is over.
    """

    layout: Layout
    key: TagKey
    mode: ReadMode
    sidecars: Sidecars
    partials: Partials


class LocalIngest:
    """Implements `Ingest`. Made by `open_ingest` or `resume`; owns the descriptors and the lock.

    Arguments:
        lock_fd: the partial, locked, open for writing.
        size: bytes of the whole blob.
    """

    def __init__(self, key: BlobKey, size: int, lock_fd: int, place: Place) -> None:
        self._key = key
        self._size = size
        self._place = place
        self._path = place.layout.partial(key, size)
        self._fd = lock_fd
        self._kept = self._empty()
        self._former: list[FileReader] = []
        self._reserved = False
        self.superseded = place.layout.blob(key.digest).exists()

    @property
    def have(self) -> int:
        return self._kept.have

    def replay(self, feed: Feed, known: KeptBytes | None) -> None:
        """Take over what a former writer left, telling it to `feed`; `known` is what was already
        read of it. Blocks. Raises OSError, and Integrity when that changed.
        """
        found = os.fstat(self._fd).st_size
        if found > self._size:
            os.ftruncate(self._fd, 0)
            if known is not None:
                raise Integrity("What another process left is longer than the content.")
            return
        if known is not None:
            known.tell(feed, self._kept.tags)
            self._kept.have = known.have
        buffer = memoryview(bytearray(min(PIECE_BYTES, found)))
        while self.have < found:
            count = read_fully(self._fd, buffer[: found - self.have], self.have)
            if count == 0:
                break
            feed(buffer[:count])
            self._kept.add(buffer[:count])

    def write(self, data: memoryview) -> None:
        if not self._reserved and self._size >= _RESERVED_BYTES:
            self._reserved = True
            reserve(self._fd, self._size)
        try:
            write_all(self._fd, data, self.have)
        except OSError as error:
            self._give_up()
            raise unavailable(error) from error
        self._kept.add(data)

    async def read(self, into: memoryview, offset: int) -> int:
        return await self._kept.read(into, offset)

    def restart(self) -> None:
        if not self.have:
            return
        former = self._fd
        try:
            self._fd = replace_partial(self._path, former)
            try:
                os.ftruncate(former, 0)  # only now: who finds it void looks for a new one
            finally:
                os.close(former)
            self._former.append(self._kept.file)  # it may be in use
            self._kept = self._empty()
            self._reserved = False
        except OSError as error:
            self._give_up()
            raise unavailable(error) from error

    def publish(self) -> None:
        layout, digest = self._place.layout, self._key.digest
        draft = self._path.with_suffix(".tags")
        try:
            sidecar = self._kept.tags.sidecar(self.have, str(self._key.host))
            moves = [(self._path, layout.blob(digest))]
            os.fsync(self._fd)
            # Tags that a power loss takes are made anew, from content that still hashes right.
            if not self._place.sidecars.attach(self._fd, sidecar):
                write_new(draft, sidecar, synced=False)
                moves.insert(0, (draft, layout.tags(digest)))
            move(*moves)
        except OSError as error:
            with contextlib.suppress(OSError):  # a folder that became read-only keeps it
                draft.unlink(missing_ok=True)
            self._give_up()
            raise unavailable(error) from error
        try:
            sync_folder(layout.blob(digest).parent)
        except OSError as error:
            # Readers have it, and eviction must know of it. A power loss may cost a transfer.
            log.warning("published_name_not_synced", digest=str(digest), error=error.strerror)
        self._let_go()

    async def close(self, *, keep: bool, refusal: Upstream | None = None) -> None:
        for file in (self._kept.file, *self._former):
            file.close()
        if self._fd >= 0:
            finish: Callable[[], None] = self._leave
            if not (keep and self.have):
                finish = partial(self._void, None if self.have else refusal)
            await run_to_end(self._place.mode.executor, finish)

    def abandon(self) -> None:
        """Close at once, keeping the bytes, when nobody has it yet."""
        self._kept.file.close()
        self._let_go()

    def _empty(self) -> KeptBytes:
        file = FileReader(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC), self._place.mode)
        return KeptBytes(file, TagWriter(self._place.key, self._key.digest))

    def _void(self, refusal: Upstream | None) -> None:
        """Delete it, and let followers see that its bytes were wrong, or why there are none."""
        try:
            if self.have:
                os.ftruncate(self._fd, 0)
            self._path.unlink(missing_ok=True)
            if refusal is not None:
                note(self._fd, refusal)
        except OSError as error:  # the sweep finds it when the disk lets go of it
            log.warning("partial_not_removed", error=error.strerror)
        finally:
            self._let_go()

    def _give_up(self) -> None:
        """Nothing can be kept any more: let others try, or do without, now."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                if is_named(self._fd, self._path):  # else it is published, or another's by now
                    self._path.unlink()
            self._leave()

    def _leave(self) -> None:
        """Take no more room than its bytes do, and let others have it: to go on with, or to read to its end."""
        with contextlib.suppress(OSError):
            give_back(self._fd)
        self._let_go()

    def _let_go(self) -> None:
        self._place.partials.release(self._path)
        # A descriptor of a tail that was taken over shares the lock: closing ours is not enough.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1


def open_ingest(key: BlobKey, size: int, feed: Feed, place: Place) -> LocalIngest:
    """Start or resume an ingest, as `BlobStore.ingest` says. Blocks. Raises Busy, Unavailable."""
    return resume(key, size, feed, place, lock_partial(place.layout.partial(key, size)), None)


def begin_ingest(key: BlobKey, size: int, place: Place) -> LocalIngest | None:
    """An ingest that holds nothing yet; None when it cannot be had at once, or something is left to go on
    with: `open_ingest` goes on, or says why not. Blocks.
    """
    try:
        fd = lock_partial(place.layout.partial(key, size))
        if os.fstat(fd).st_size:
            os.close(fd)
            return None
        return resume(key, size, _nobody, place, fd, None)
    except Unavailable:
        return None


def resume(
    key: BlobKey, size: int, feed: Feed, place: Place, fd: int, known: KeptBytes | None
) -> LocalIngest:
    """Go on with a partial. Blocks.

    Arguments:
        fd: it, locked; owned, also when this fails.
        known: what was already read of it.

    Raises Unavailable, and Integrity when what is known changed.
    """
    path = place.layout.partial(key, size)
    try:
        place.partials.reserve(path, size)
    except Unavailable:
        os.close(fd)
        raise
    try:
        ingest = LocalIngest(key, size, fd, place)
    except OSError as error:
        place.partials.release(path)
        os.close(fd)
        raise unavailable(error) from error
    try:
        ingest.replay(feed, known)
    except (OSError, Integrity) as error:
        ingest.abandon()
        if isinstance(error, OSError):
            raise unavailable(error) from error
        raise
    return ingest


def _nobody(_: memoryview) -> None:
    """Is told nothing: there is nothing."""
