"""The store on a local disk.

Guarantees: an object that `open` gives out has its tags, and every block is checked against
them before it is handed out; a truncated or untagged file is re-hashed or quarantined, never
served on trust. Open objects are shared and a few stay open when idle, so that a warm hit needs no
thread; what any process reads (`opened`) none removes. Does not scan objects at start. Size limits are `eviction`'s; those of partials, `partials`'.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from facade.clock import Clock, SystemClock
from facade.errors import Unavailable
from facade.oci.digest import Digest
from facade.serving.blobs.diskread import FileReader, ReadMode
from facade.serving.blobs.ingest import LocalIngest, Place, begin_ingest, open_ingest
from facade.serving.blobs.layout import Layout
from facade.serving.blobs.nodekey import load_node_key
from facade.serving.blobs.objects import Objects, Opened, Unfit
from facade.serving.blobs.opened import LocalReader, OpenObject, when_unlocked
from facade.serving.blobs.partials import Partials
from facade.serving.blobs.port import BlobKey, Feed, Found
from facade.serving.blobs.quarantine import Quarantine
from facade.serving.blobs.sidecars import Sidecars
from facade.serving.blobs.tags import TagKey
from facade.serving.blobs.tail import LocalTail, abandon_tail, open_tail
from facade.serving.blobs.threads import run_to_end

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
        attributes: False = block tags always lie in files of their own.

    Raises OSError.
    """

    def __init__(
        self,
        layout: Layout,
        key: TagKey,
        executor: Executor,
        *,
        nowait: bool = True,
        attributes: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._layout = layout
        self._clock = clock or SystemClock()
        self.partials = Partials(layout.ingest)
        self._filling: Callable[[int], None] = lambda _: None
        self._unfit: Callable[[Digest, str], None] = lambda *_: None
        self._quarantine = Quarantine(layout)
        sidecars = Sidecars(attributes=attributes)
        self._objects = Objects(layout, key, sidecars, self._quarantine)
        self.mode = ReadMode(executor, nowait=nowait)
        self._place = Place(layout, key, self.mode, sidecars, self.partials)
        self._open: OrderedDict[Digest, OpenObject] = OrderedDict()
        self._opening: dict[Digest, asyncio.Event] = {}
        """Set when whoever opens it just now has done so, or has not."""

    @classmethod
    def at(
        cls,
        root: Path,
        executor: Executor,
        *,
        nowait: bool = True,
        attributes: bool = True,
        clock: Clock | None = None,
    ) -> Self:
        """The store under `root`, made when absent. Blocks. Raises Unavailable, Invalid."""
        layout = Layout(root)
        try:
            layout.make()
            key = TagKey(load_node_key(root / "node.key"))
            return cls(layout, key, executor, nowait=nowait, attributes=attributes, clock=clock)
        except OSError as error:
            raise Unavailable(f"The store {root} cannot be used: {error.strerror}.") from error

    def limit(self, max_bytes: int, filling: Callable[[int], None]) -> None:
        """Refuse ingests that would bring all partials above `max_bytes`.

        Arguments:
            filling: told, on the loop, of how many bytes an ingest began, so that room can be made.
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
        found = await self._find(digest, None)
        return found if isinstance(found, LocalReader) else None

    async def find(self, key: BlobKey, size: int) -> Found:
        found = await self._find(key.digest, partial(begin_ingest, key, size, self._place))
        if isinstance(found, LocalReader):
            return Found(reader=found)
        if found is not None:
            self._filling(size)
        return Found(begun=found)

    def opened(self, digest: Digest) -> LocalReader | None:
        shared = self._open.get(digest)
        if shared is None or not shared.take():
            return None
        self._open.move_to_end(digest)
        return LocalReader(shared, self._retire_idle)

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> LocalIngest:
        job = partial(open_ingest, key, size, feed, self._place)
        ingest = await run_to_end(self.mode.executor, job, LocalIngest.abandon)
        self._filling(size)
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
        return await self._run(partial(self._objects.remove, digest))

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

    async def _find(
        self, digest: Digest, otherwise: Callable[[], LocalIngest | None] | None
    ) -> LocalReader | LocalIngest | None:
        """The object, open; where there is none, what `otherwise` gives, called in the thread that looked."""
        # Again and again: what was opened may be closed or removed before it is taken.
        while (reader := self.opened(digest)) is None:
            if (opening := self._opening.get(digest)) is not None:
                await opening.wait()
                continue
            found = await self._look(digest, otherwise)
            self._retire(digest)
            if isinstance(found, Opened):
                self._open[digest] = OpenObject(FileReader(found.fd, self.mode), found.tags)
            elif isinstance(found, Unfit):
                self._unfit(digest, found.detail)
                return None
            else:
                return found
        return reader

    async def _look(
        self, digest: Digest, otherwise: Callable[[], LocalIngest | None] | None
    ) -> Opened | Unfit | LocalIngest | None:
        looked = self._opening[digest] = asyncio.Event()

        def look() -> Opened | Unfit | LocalIngest | None:
            found = self._objects.open(digest)
            return otherwise() if found is None and otherwise is not None else found

        try:
            return await when_unlocked(
                lambda: run_to_end(self.mode.executor, look, _abandon), self._clock
            )
        finally:
            del self._opening[digest]
            looked.set()

    def _retire(self, digest: Digest) -> None:
        shared = self._open.pop(digest, None)
        if shared is not None:
            shared.retire()

    def _retire_idle(self) -> None:
        idle = [digest for digest, shared in self._open.items() if not shared.users]
        for digest in idle[:-MAX_IDLE_OBJECTS]:
            self._retire(digest)


def _abandon(found: Opened | Unfit | LocalIngest | None) -> None:
    """Close what nobody has got."""
    if isinstance(found, Opened):
        os.close(found.fd)
    elif isinstance(found, LocalIngest):
        found.abandon()
