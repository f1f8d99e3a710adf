"""The store on a local disk.

Guarantees: an object that `open` gives out has its tags, and every block is checked against
them before it is handed out; a truncated or untagged file is re-hashed or quarantined, never
served on trust. Open objects are shared and a few stay open when idle, so that a warm hit needs no
thread; what any process reads (`opened`) none removes. Does not scan objects at start. Size limits are `eviction`'s; those of partials, `partials`'.
"""

import asyncio
import contextlib
import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import structlog

from facade.clock import Clock, SystemClock
from facade.errors import Integrity, Unavailable
from facade.oci.digest import Digest
from facade.reasons import Reason
from facade.serving.blobs.diskread import FileReader, ReadMode
from facade.serving.blobs.ingest import LocalIngest, Place, open_ingest
from facade.serving.blobs.layout import Layout, write_durably
from facade.serving.blobs.nodekey import load_node_key
from facade.serving.blobs.opened import LocalReader, OpenObject, when_unlocked
from facade.serving.blobs.partials import Partials, is_named, try_lock
from facade.serving.blobs.port import BlobKey, Busy, Feed
from facade.serving.blobs.quarantine import Quarantine
from facade.serving.blobs.rehash import rehash
from facade.serving.blobs.tags import BlockTags, TagKey, read_sidecar
from facade.serving.blobs.tail import LocalTail, abandon_tail, open_tail
from facade.serving.blobs.threads import run_to_end

log = structlog.get_logger(__name__)

MAX_IDLE_OBJECTS = 64
"""How many objects stay open while nobody reads them."""

_Result = TypeVar("_Result")


class LocalStore:
    """Implements `HotStore` and `sharing.Tails`.

    Arguments:
        layout: its folders, which exist.
        key: the node's, for block tags.
        executor: threads for whatever blocks.
        nowait: False = every read goes to a thread.

    Raises OSError.
    """

    def __init__(
        self,
        layout: Layout,
        key: TagKey,
        executor: Executor,
        *,
        nowait: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._layout = layout
        self._clock = clock or SystemClock()
        self._quarantine = Quarantine(layout)
        self.partials = Partials(layout.ingest)
        self._filling: Callable[[], None] = lambda: None
        self._unfit: Callable[[Digest, str], None] = lambda *_: None
        self._key = key
        self.mode = ReadMode(executor, nowait=nowait)
        self._place = Place(layout, key, self.mode, self.partials)
        self._open: OrderedDict[Digest, OpenObject] = OrderedDict()
        self._opening: dict[Digest, asyncio.Task[OpenObject | None]] = {}

    @classmethod
    def at(
        cls,
        root: Path,
        executor: Executor,
        *,
        nowait: bool = True,
        clock: Clock | None = None,
    ) -> Self:
        """The store under `root`, made when absent. Blocks. Raises Unavailable, Invalid."""
        layout = Layout(root)
        try:
            layout.make()
            key = TagKey(load_node_key(root / "node.key"))
            return cls(layout, key, executor, nowait=nowait, clock=clock)
        except OSError as error:
            raise Unavailable(f"The store {root} cannot be used: {error.strerror}.") from error

    def limit(self, max_bytes: int, filling: Callable[[], None]) -> None:
        """Refuse ingests that would bring all partials above `max_bytes`.

        Arguments:
            filling: told, on the loop, when an ingest began, so that room can be made.
        """
        self.partials.limit(max_bytes)
        self._filling = filling

    def watch(self, unfit: Callable[[Digest, str], None]) -> None:
        """From now on `unfit` is told, on the loop, of each object that was set aside on opening, and why."""
        self._unfit = unfit

    def refuses(self) -> str | None:
        """Why nothing new can be kept, in the system's words; None when it can. Blocks."""
        return self._layout.refuses()

    async def open(self, digest: Digest) -> LocalReader | None:
        # Again and again: what was opened may be closed or removed before it is taken.
        while (reader := self.opened(digest)) is None:
            task = self._opening.get(digest)
            if task is None:
                task = asyncio.create_task(self._open_object(digest))
                self._opening[digest] = task
            if await asyncio.shield(task) is None:
                return None
        return reader

    def opened(self, digest: Digest) -> LocalReader | None:
        shared = self._open.get(digest)
        if shared is None or not shared.take():
            return None
        self._open.move_to_end(digest)
        return LocalReader(shared, self._retire_idle)

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> LocalIngest:
        job = partial(open_ingest, key, size, feed, self._place)
        ingest = await run_to_end(self.mode.executor, job, LocalIngest.abandon)
        self._filling()
        return ingest

    async def follow(self, key: BlobKey, size: int) -> LocalTail | None:
        """What another process writes (`sharing.Tails`)."""
        job = partial(open_tail, key, size, self._place)
        return await run_to_end(self.mode.executor, job, abandon_tail)

    async def quarantine(self, digest: Digest) -> None:
        shared = self._open.get(digest)
        spoiled = None if shared is None else os.fstat(shared.file.fd)
        self._retire(digest)
        await self._run(partial(self._quarantine.take, digest, spoiled))

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
        return self._quarantine.count()

    def set_aside(self, digest: Digest) -> bool:
        """Whether that object is kept to look at. Blocks. Raises OSError."""
        return self._quarantine.holds(digest)

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
        return await run_to_end(self.mode.executor, job)

    async def _open_object(self, digest: Digest) -> OpenObject | None:
        try:
            job = partial(self._open_blocking, digest)
            opened = await when_unlocked(partial(self._run, job), self._clock)
        finally:
            del self._opening[digest]
        self._retire(digest)
        if isinstance(opened, str):
            self._unfit(digest, opened)
            return None
        if opened is None:
            return None
        fd, tags = opened
        shared = OpenObject(FileReader(fd, self.mode), tags)
        self._open[digest] = shared
        return shared

    def _open_blocking(self, digest: Digest) -> tuple[int, BlockTags] | str | None:
        """It; why it was set aside; or None when there is none. Raises Busy while it is locked."""
        try:
            fd = os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("cached_object_unreadable", digest=str(digest), error=error.strerror)
            return None
        try:
            # Not while it is being published or removed.
            if not try_lock(fd, fcntl.LOCK_SH):
                raise Busy("Another process has it locked just now.", reason=Reason.INTERNAL)
            if not os.fstat(fd).st_nlink:
                os.close(fd)
                return None
            tags = self._read_tags(digest, fd)
            fcntl.flock(fd, fcntl.LOCK_UN)  # its readers take it
        except (Integrity, OSError) as error:
            log.error("cached_object_unfit", digest=str(digest), error=str(error))
            spoiled = os.fstat(fd)
            os.close(fd)
            self._quarantine.take(digest, spoiled)
            return str(error)
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

    def _remove(self, digest: Digest) -> int | None:
        path = self._layout.blob(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not (try_lock(fd, fcntl.LOCK_EX) and is_named(fd, path)):
                    return None  # another process reads it
                size = os.fstat(fd).st_size
                path.unlink()
                self._layout.tags(digest).unlink(missing_ok=True)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"A cached object stays: {error.strerror}.") from error
        return size

    def _retire(self, digest: Digest) -> None:
        shared = self._open.pop(digest, None)
        if shared is not None:
            shared.retire()

    def _retire_idle(self) -> None:
        idle = [digest for digest, shared in self._open.items() if not shared.users]
        for digest in idle[:-MAX_IDLE_OBJECTS]:
            self._retire(digest)
