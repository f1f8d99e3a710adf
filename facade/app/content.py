"""Wires the cache of verified content: store, index, transfers, and what keeps them in order.

Guarantees: what was opened is closed in the reverse order with the stack. Does not decide who may
read: `pulls` does.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from facade.app.background import background
from facade.clock import Clock
from facade.config import Settings
from facade.errors import Invalid, Unavailable
from facade.oci.digest import Digest
from facade.serving.blobs.cache import BlobCache
from facade.serving.blobs.duty import Duty
from facade.serving.blobs.eviction import Bounds, Evictor
from facade.serving.blobs.keeper import StoreKeeper
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.possession import PossessionIndex
from facade.serving.blobs.scrub import Scrubber
from facade.serving.blobs.threads import run_to_end
from facade.serving.pulls.reports import BlobEvents

BLOB_THREADS = 16
"""They hash, write, read and fsync. An fsync of a large layer may take seconds: with few threads,
a handful of them would hold up every other pull. Idle ones are not started."""
SAMPLE_SECONDS = 10.0
AGAIN_SECONDS = 1.0
"""How soon a folder that cannot be written is tried again."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Content:
    """The cache, wired.

    Arguments:
        held: objects and bytes, as last looked at (every `SAMPLE_SECONDS`).
        max_bytes: what it may hold; free: bytes on its disk, as last looked at.
        refuses: why nothing new can be kept, in the system's words, as last tried; None = it can.
        index_trouble: why the index cannot be used, in words, as last tried; None = it can.
        wanted: what is evicted last; set when somebody knows.
    """

    blobs: BlobCache
    keeper: StoreKeeper
    held: tuple[int, int] = (0, 0)
    max_bytes: int = 0
    free: int = 0
    refuses: str | None = None
    index_trouble: str | None = None
    wanted: Callable[[], frozenset[Digest]] = frozenset

    @property
    def objects(self) -> Callable[[], int]:
        """For the metrics."""
        return lambda: self.held[0]

    @property
    def bytes(self) -> Callable[[], int]:
        """For the metrics."""
        return lambda: self.held[1]


async def open_content(
    stack: AsyncExitStack, settings: Settings, events: BlobEvents, clock: Clock
) -> Content:
    """Open the store that is configured. Raises Invalid, naming the folder."""
    if settings.store.url is None:
        raise Invalid("The cache needs store.url, like file:///var/cache/facade.")
    folder = Path(unquote(urlsplit(settings.store.url).path))
    executor = ThreadPoolExecutor(BLOB_THREADS, thread_name_prefix="blobs")
    stack.callback(executor.shutdown)
    try:
        store = await asyncio.to_thread(LocalStore.at, folder, executor)
        stack.callback(store.close)
        index = await asyncio.to_thread(PossessionIndex.at, folder / "index.db", clock)
        stack.push_async_callback(index.close)
        held = await index.totals()
        bounds = await asyncio.to_thread(_bounds, settings, folder, held[1])
    except OSError as error:
        raise Invalid(f"The cache folder {folder} cannot be used: {error.strerror}.") from error

    def spoiled(digest: Digest, detail: str) -> None:
        events.integrity_failed("", "", str(digest), detail)

    content: Content
    evictor = Evictor(
        store=store,
        order=index,
        bounds=bounds,
        observer=events,
        wanted=lambda: content.wanted(),  # noqa: PLW0108 - it is set later
        partials=lambda: run_to_end(executor, store.partials.count),
    )
    scrubber = Scrubber(
        store=store, register=index, clock=clock, executor=executor, spoiled=spoiled
    )
    blobs: BlobCache
    duty = Duty(folder / "keeper.lock")
    stack.callback(duty.close)
    keeper = StoreKeeper(
        evictor=evictor,
        scrubber=scrubber,
        order=index,
        attic=store,
        bounds=bounds,
        in_flight=lambda: len(blobs.flights),
        clock=clock,
        executor=executor,
        duty=duty.take,
        traces=lambda: _traces(folder),
    )
    store.limit(bounds.max_bytes, keeper.grown)
    blobs = BlobCache(
        store=store,
        possession=index,
        clock=clock,
        executor=executor,
        limits=TransferLimits(
            holdback_bytes=settings.pull.holdback_bytes,
            strict=settings.pull.verify == "strict",
        ),
        observer=events,
        tails=store,
    )
    store.watch(spoiled)
    stack.push_async_callback(blobs.close)
    content = Content(blobs, keeper, held, bounds.max_bytes, await asyncio.to_thread(_free, folder))

    async def sample() -> None:
        while True:
            await clock.sleep(SAMPLE_SECONDS if content.refuses is None else AGAIN_SECONDS)
            _note(content, folder, await asyncio.to_thread(store.refuses))
            try:
                content.held, content.index_trouble = await index.totals(), None
            except Unavailable as error:  # the keeper logs it
                content.index_trouble = error.message
            with suppress(OSError):
                content.free = await asyncio.to_thread(_free, folder)

    background(stack, keeper.run())
    background(stack, sample())
    return content


def _note(content: Content, folder: Path, refuses: str | None) -> None:
    """What trying to write showed; a change is logged."""
    if refuses is not None and content.refuses is None:
        log.warning("cache_unwritable", path=str(folder), error=refuses)
    elif refuses is None and content.refuses is not None:
        log.info("cache_writable", path=str(folder))
    content.refuses = refuses


def _traces(folder: Path) -> list[int]:
    """Others when a process has begun a partial since, or written into the index."""
    found = []
    for path in (folder / "ingest", folder / "index.db-wal"):
        try:
            status = path.stat()
        except OSError:  # not there yet
            continue
        found += [status.st_mtime_ns, status.st_size]
    return found


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _bounds(settings: Settings, folder: Path, held: int) -> Bounds:
    given = settings.store
    if given.max_bytes is None:
        return Bounds.of_disk(folder, held, high=given.high_watermark, low=given.low_watermark)
    return Bounds(given.max_bytes, given.high_watermark, given.low_watermark)
