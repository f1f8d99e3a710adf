"""What tests of blobs need again and again: content, keys, a cache on a folder, reading to the end."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from facade.clock import Clock
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.serving.blobs.cache import BlobCache
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.observer import NullObserver
from facade.serving.blobs.opened import LocalReader
from facade.serving.blobs.port import BlobKey, BlobStream, Found, HotStore
from facade.serving.blobs.possession import PossessionIndex
from facade.upstream.connection import Connection
from tests.support.blob_source import ScriptedSource
from tests.support.clock import FakeClock

HOST = RegistryHost.parse("ghcr.io")
REPOSITORY = Repository.parse("org/app")
CONNECTION = Connection(id="c1", host=HOST, provider="anonymous")
MEBI = 1024 * 1024


def make_content(size: int, seed: int = 1) -> bytes:
    """`size` bytes that do not repeat, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def key_of(content: bytes, algorithm: str = "sha256") -> BlobKey:
    """The key of `content` in REPOSITORY of CONNECTION."""
    return BlobKey(CONNECTION.id, HOST, REPOSITORY, Digest.of(content, algorithm))


async def read_all(stream: BlobStream, start: int = 0, stop: int | None = None) -> bytes:
    """Read a stream to its end and close it."""
    try:
        return b"".join([bytes(view) async for view in stream.chunks(start, stop)])
    finally:
        await stream.aclose()


async def idle(bench: "Bench") -> None:
    """Return when no transfer is under way. Raises TimeoutError after 5 real seconds."""
    async with asyncio.timeout(5):
        while len(bench.cache.flights):  # noqa: ASYNC110 - real time, for real threads
            await asyncio.sleep(0.001)


async def get(bench: "Bench", source: ScriptedSource, content: bytes) -> BlobStream:
    """A stream of `content` from REPOSITORY, fetched from `source` on a miss."""
    return await bench.cache.get(CONNECTION, REPOSITORY, Digest.of(content), len(content), source)


class CountingObserver(NullObserver):
    """Notes what it is told: (name, arguments…)."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def hit(self, host: str) -> None:
        self.seen.append(("hit", host))

    def joined(self, host: str) -> None:
        self.seen.append(("joined", host))

    def missed(self, host: str) -> None:
        self.seen.append(("missed", host))

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        self.seen.append(("integrity_failed", host, repository, digest))

    def fetched(self, host: str, count: int) -> None:
        self.seen.append(("fetched", host, count))

    def transfer_started(self, host: str) -> None:
        self.seen.append(("transfer_started", host))

    def transfer_finished(self, host: str) -> None:
        self.seen.append(("transfer_finished", host))

    def evicted(self, objects: int, count: int) -> None:
        self.seen.append(("evicted", objects, count))

    def count(self, name: str) -> int:
        """How many times `name` was told."""
        return sum(1 for entry in self.seen if entry[0] == name)


@contextmanager
def make_executor() -> Iterator[ThreadPoolExecutor]:
    """Threads, gone at the end."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


@dataclass
class Bench:
    """A cache with everything around it in reach."""

    cache: BlobCache
    store: HotStore
    index: PossessionIndex
    clock: Clock
    observer: CountingObserver = field(default_factory=CountingObserver)


@asynccontextmanager
async def open_cache(
    root: Path,
    *,
    clock: Clock | None = None,
    limits: TransferLimits | None = None,
    store: HotStore | None = None,
    max_bytes: int | None = None,
    attributes: bool = True,
) -> AsyncIterator[Bench]:
    """A cache on the folder `root` (or on `store`), closed at the end; its partials are within
    `max_bytes`, its block tags in files of their own unless `attributes`.
    """
    clock = clock or FakeClock(auto=True)
    observer = CountingObserver()
    with make_executor() as executor:
        local = LocalStore.at(root, executor, attributes=attributes)
        if max_bytes is not None:
            local.limit(max_bytes, lambda _: None)
        index = PossessionIndex.at(root / "index.db", clock)
        used = store or local
        cache = BlobCache(
            store=used,
            possession=index,
            clock=clock,
            executor=executor,
            limits=limits,
            observer=observer,
            tails=local if store is None else None,
        )
        try:
            yield Bench(cache, used, index, clock, observer)
        finally:
            await cache.close()
            await index.close()
            local.close()


@asynccontextmanager
async def writer(root: Path) -> AsyncIterator[LocalStore]:
    """A bare store, for tests that write by hand."""
    with make_executor() as executor:
        store = LocalStore.at(root, executor)
        yield store
        store.close()


class Reading:
    """A stream that is read in the background, as far as it goes."""

    def __init__(self, stream: BlobStream, start: int = 0, stop: int | None = None) -> None:
        self.got = bytearray()
        self.task = asyncio.create_task(self._read(stream, start, stop))

    async def _read(self, stream: BlobStream, start: int, stop: int | None) -> None:
        try:
            async for view in stream.chunks(start, stop):
                self.got += view
        finally:
            await stream.aclose()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < count:  # noqa: ASYNC110 - real files
                await asyncio.sleep(0.001)


class LateStore:
    """A `HotStore` that finds nothing the first time: just before another published it."""

    def __init__(self, inner: LocalStore) -> None:
        self._inner = inner
        self._asked = False
        self.ingest = inner.ingest
        self.quarantine = inner.quarantine
        self.remove = inner.remove
        self.opened = inner.opened
        self.objects = inner.objects

    async def open(self, digest: Digest) -> LocalReader | None:
        if self._asked:
            return await self._inner.open(digest)
        self._asked = True
        return None

    async def find(self, key: BlobKey, size: int) -> Found:
        if self._asked:
            return await self._inner.find(key, size)
        self._asked = True
        return Found(begun=await self._inner.ingest(key, size, lambda _: None))


def allocated(path: Path) -> int:
    """Bytes that the file takes on the disk, with what was set aside for it."""
    return path.stat().st_blocks * 512
