"""The store on a local disk.

Guarantees: an object that `open` gives out has its tags, and every block is checked against
them before it is handed out; a truncated or untagged file is re-hashed or quarantined, never
served on trust. Open objects are shared and a few stay open when idle, so that a warm hit needs no
thread. Does not scan objects at start. Size limits are `eviction`'s; those of partials, `partials`'.
"""

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import structlog

from facade.errors import Integrity, Unavailable
from facade.oci.digest import Digest
from facade.serving.blobs.diskread import FileReader, ReadMode
from facade.serving.blobs.ingest import LocalIngest, Place, open_ingest
from facade.serving.blobs.layout import Layout, write_durably
from facade.serving.blobs.nodekey import load_node_key
from facade.serving.blobs.partials import Partials
from facade.serving.blobs.port import BLOCK_BYTES, BlobKey, Feed
from facade.serving.blobs.rehash import rehash
from facade.serving.blobs.tags import BlockTags, TagKey, read_sidecar
from facade.serving.blobs.tail import LocalTail, open_tail
from facade.serving.blobs.threads import run_to_end

log = structlog.get_logger(__name__)

MAX_IDLE_OBJECTS = 64
"""How many objects stay open while nobody reads them."""
MAX_QUARANTINED = 8
"""How many failed objects are kept to look at; older ones are deleted."""

_Result = TypeVar("_Result")


class _Object:
    """An open object, shared by its readers."""

    def __init__(self, file: FileReader, tags: BlockTags) -> None:
        self.file = file
        self.tags = tags
        self.users = 0
        self.retired = False

    def is_current(self) -> bool:
        """Whether its file still has its name and length (neither call touches the disk)."""
        status = os.fstat(self.file.fd)
        return status.st_nlink > 0 and status.st_size == self.tags.size

    def release(self) -> None:
        if self.retired and not self.users:
            self.file.close()


class LocalReader:
    """Implements `BlobReader`: one block at a time into a buffer of its own.

    Arguments:
        closed: told after closing.
    """

    def __init__(self, shared: _Object, closed: Callable[[], None]) -> None:
        self._object = shared
        self._closed = closed
        self._file = shared.file
        self._tags = shared.tags
        self.size = shared.tags.size
        self.origin = shared.tags.origin
        self._buffer = memoryview(bytearray(min(self.size, BLOCK_BYTES)))
        self._open = True
        shared.users += 1

    async def read(self, offset: int, length: int) -> memoryview:
        index, inside = divmod(offset, BLOCK_BYTES)
        count = min(BLOCK_BYTES, self.size - index * BLOCK_BYTES)
        block = self._buffer if count == len(self._buffer) else self._buffer[:count]
        try:
            found = await self._file.fill(block, index * BLOCK_BYTES)
        except OSError as error:
            raise Integrity(f"A cached block cannot be read: {error.strerror}.") from error
        if found != count:
            raise Integrity("A cached file is cut short.")
        self._tags.check(index, block)
        if inside == 0 and length >= count:
            return block
        return block[inside : inside + length]

    def close(self) -> None:
        if self._open:
            self._open = False
            self._object.users -= 1
            self._object.release()
            self._closed()


class LocalStore:
    """Implements `BlobStore` and `sharing.Tails`.

    Arguments:
        layout: its folders, which exist.
        key: the node's, for block tags.
        executor: threads for whatever blocks.
        nowait: False = every read goes to a thread.

    Raises OSError.
    """

    def __init__(
        self, layout: Layout, key: TagKey, executor: Executor, *, nowait: bool = True
    ) -> None:
        self._layout = layout
        self.partials = Partials(layout.ingest)
        self._filling: Callable[[], None] = lambda: None
        self._key = key
        self.mode = ReadMode(executor, nowait=nowait)
        self._place = Place(layout, key, self.mode, self.partials)
        self._open: OrderedDict[Digest, _Object] = OrderedDict()
        self._opening: dict[Digest, asyncio.Task[_Object | None]] = {}

    @classmethod
    def at(cls, root: Path, executor: Executor, *, nowait: bool = True) -> Self:
        """The store under `root`, made when absent. Blocks. Raises Unavailable, Invalid."""
        layout = Layout(root)
        try:
            layout.make()
            key = TagKey(load_node_key(root / "node.key"))
            return cls(layout, key, executor, nowait=nowait)
        except OSError as error:
            raise Unavailable(f"The store {root} cannot be used: {error.strerror}.") from error

    def limit(self, max_bytes: int, filling: Callable[[], None]) -> None:
        """Refuse ingests that would bring all partials above `max_bytes`.

        Arguments:
            filling: told, on the loop, when an ingest began, so that room can be made.
        """
        self.partials.limit(max_bytes)
        self._filling = filling

    async def open(self, digest: Digest) -> LocalReader | None:
        while True:
            shared = self._open.get(digest)
            if shared is not None and shared.is_current():
                self._open.move_to_end(digest)
                return LocalReader(shared, self._retire_idle)
            task = self._opening.get(digest)
            if task is None:
                task = asyncio.create_task(self._open_object(digest))
                self._opening[digest] = task
            shared = await asyncio.shield(task)
            if shared is None:
                return None
            if not shared.retired:  # else it was closed or removed before we came to run
                return LocalReader(shared, self._retire_idle)

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> LocalIngest:
        job = partial(open_ingest, key, size, feed, self._place)
        ingest = await run_to_end(self.mode.executor, job, LocalIngest.abandon)
        self._filling()
        return ingest

    async def follow(self, key: BlobKey, size: int) -> LocalTail | None:
        """What another process writes (`sharing.Tails`)."""
        return await self._run(partial(open_tail, key, size, self._place))

    async def quarantine(self, digest: Digest) -> None:
        self._retire(digest)
        await self._run(partial(self._quarantine, digest))

    async def remove(self, digest: Digest) -> int | None:
        shared = self._open.get(digest)
        if digest in self._opening or (shared is not None and shared.users):
            return None
        self._retire(digest)
        return await self._run(partial(self._remove, digest))

    def objects(self) -> Iterator[tuple[Digest, int]]:
        return self._layout.objects()

    def quarantined(self) -> int:
        """How many failed objects are kept to look at. Blocks."""
        return sum(1 for path in self._layout.quarantine.iterdir() if path.suffix != ".tags")

    def sweep_partials(self, older_than: float) -> int:
        """Delete partials last written before `older_than` (Unix seconds) that nobody writes.

        Blocks. Returns how many.
        """
        return self.partials.sweep(older_than)

    def close(self) -> None:
        """Close idle objects; those in use close with their last reader."""
        for digest in list(self._open):
            self._retire(digest)

    async def _run(self, job: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self.mode.executor, job)

    async def _open_object(self, digest: Digest) -> _Object | None:
        try:
            opened = await self._run(partial(self._open_blocking, digest))
        finally:
            del self._opening[digest]
        self._retire(digest)
        if opened is None:
            return None
        fd, tags = opened
        shared = _Object(FileReader(fd, self.mode), tags)
        self._open[digest] = shared
        return shared

    def _open_blocking(self, digest: Digest) -> tuple[int, BlockTags] | None:
        try:
            fd = os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cached_object_unreadable", digest=str(digest), error=error.strerror)
            return None
        try:
            tags = self._read_tags(digest, fd)
        except (Integrity, OSError) as error:
            log.error("cached_object_unfit", digest=str(digest), error=str(error))
            os.close(fd)
            self._quarantine(digest)
            return None
        except BaseException:
            os.close(fd)
            raise
        return fd, tags

    def _read_tags(self, digest: Digest, fd: int) -> BlockTags:
        size = os.fstat(fd).st_size
        path = self._layout.tags(digest)
        try:
            tags = BlockTags.parse(self._key, digest, read_sidecar(path, size))
            if tags.size == size:
                return tags
        except (Integrity, FileNotFoundError) as error:
            # Another node key, or a damaged sidecar: the digest itself can still decide.
            log.warning("cached_object_rehashed", digest=str(digest), error=str(error))
        sidecar = rehash(fd, digest, size, self._key)
        draft = self._layout.ingest / f"{digest.algorithm}-{digest.hex}.{os.getpid()}.retag"
        with contextlib.suppress(OSError):  # a full disk is no reason to lose the object
            write_durably(path, sidecar, draft)
        return BlockTags.parse(self._key, digest, sidecar)

    def _quarantine(self, digest: Digest) -> None:
        try:
            self._set_aside(digest)
        except OSError as error:
            log.error("quarantine_failed", digest=str(digest), error=error.strerror)

    def _set_aside(self, digest: Digest) -> None:
        place = self._layout.quarantined(digest)
        for source, target in (
            (self._layout.blob(digest), place),
            (self._layout.tags(digest), place.with_name(f"{place.name}.tags")),
        ):
            with contextlib.suppress(FileNotFoundError):
                source.rename(target)
        kept = [path for path in self._layout.quarantine.iterdir() if path.suffix != ".tags"]
        for path in sorted(kept, key=lambda path: path.stat().st_ctime)[:-MAX_QUARANTINED]:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.tags").unlink(missing_ok=True)

    def _remove(self, digest: Digest) -> int | None:
        path = self._layout.blob(digest)
        try:
            size = path.stat().st_size
            path.unlink()
            self._layout.tags(digest).unlink(missing_ok=True)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"A cached object stays: {error.strerror}.") from error
        return size

    def _retire(self, digest: Digest) -> None:
        shared = self._open.pop(digest, None)
        if shared is not None:
            shared.retired = True
            shared.release()

    def _retire_idle(self) -> None:
        idle = [digest for digest, shared in self._open.items() if not shared.users]
        for digest in idle[:-MAX_IDLE_OBJECTS]:
            self._retire(digest)
