"""Keeping the store within its size: the longest unused goes first, the signed goes last.

Guarantees: an object in use is never removed; nothing is removed while the store is within its
bounds. The order is the index's: objects that it does not know of (a lost index) come back into it
by the scrubber.
"""

import os
from collections.abc import Awaitable, Callable, Collection, Container
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from facade.errors import Unavailable
from facade.oci.digest import Digest
from facade.serving.blobs.observer import EvictionObserver
from facade.serving.blobs.port import BlobStore

log = structlog.get_logger(__name__)

FREE_SHARE = 0.8
"""Of the disk's free space, where no size is configured."""
_PAGE = 256


class Place(NamedTuple):
    """An object's place in the order of use: `size` in bytes, `used` in Unix seconds."""

    digest: Digest
    size: int
    used: float


class UseOrder(Protocol):
    """What eviction needs of the index (`possession.PossessionIndex`)."""

    async def least_recently_used(self, limit: int, after: Place | None = None) -> list[Place]:
        """Objects behind `after`, the longest unused first."""
        ...

    async def totals(self) -> tuple[int, int]:
        """Objects and their bytes."""
        ...

    async def flush(self) -> None:
        """Write use times that are only in memory."""
        ...

    async def forget(self, digests: Collection[Digest]) -> None:
        """Objects are gone."""
        ...

    async def renew(self) -> bool:
        """Be of use again; whether it was not, and knows little now."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """When eviction starts and where it stops, in bytes.

    Arguments:
        max_bytes: what the store may hold.
        high, low: shares of it at which eviction starts and stops, in (0, 1].
    """

    max_bytes: int
    high: float = 0.95
    low: float = 0.85

    @property
    def start(self) -> int:
        """Above this, eviction starts."""
        return int(self.max_bytes * self.high)

    @property
    def stop(self) -> int:
        """Down to this it goes."""
        return int(self.max_bytes * self.low)

    @classmethod
    def of_disk(cls, folder: Path, held: int, *, high: float = 0.95, low: float = 0.85) -> "Bounds":
        """Bounds from what is free on the folder's disk. Raises OSError.

        Arguments:
            held: bytes that the store holds already.
        """
        status = os.statvfs(folder)
        return cls(held + int(status.f_bavail * status.f_frsize * FREE_SHARE), high, low)


class Evictor:
    """Removes objects from a store until it is within bounds.

    Arguments:
        wanted: what the current signed targets reach, asked anew each time.
        partials: bytes that partial files take or will take: objects make room for them.
    """

    def __init__(
        self,
        *,
        store: BlobStore,
        order: UseOrder,
        bounds: Bounds,
        observer: EvictionObserver,
        wanted: Callable[[], Container[Digest]] = frozenset,
        partials: Callable[[], Awaitable[int]],
    ) -> None:
        self._store = store
        self._order = order
        self._bounds = bounds
        self._observer = observer
        self._wanted = wanted
        self._partials = partials

    async def room(self) -> int:
        """Bytes that may come until eviction has to start; negative when it has to. Raises Unavailable."""
        _, held = await self._order.totals()
        return self._bounds.start - held - await self._partials()

    async def evict(self) -> tuple[int, int]:
        """Evict down to the low watermark: (objects, bytes) removed. Raises Unavailable."""
        await self._order.flush()
        _, held = await self._order.totals()
        too_much = held + await self._partials() - self._bounds.stop
        wanted = self._wanted()
        objects = removed = 0
        for wanted_ones in (False, True):
            page = await self._order.least_recently_used(_PAGE)
            while page and removed < too_much:
                gone = []
                for digest, size, _ in page:
                    if removed >= too_much:
                        break
                    if (digest in wanted) is not wanted_ones:
                        continue
                    count = await self._remove(digest)
                    if count is not None:
                        gone.append(digest)
                        objects += count
                        removed += size
                await self._order.forget(gone)
                page = await self._order.least_recently_used(_PAGE, page[-1])
        if removed:
            log.info("evicted", objects=objects, bytes=removed)
            self._observer.evicted(objects, removed)
        return objects, removed

    async def _remove(self, digest: Digest) -> int | None:
        """How many objects went (0: it was gone already), None when it stays."""
        try:
            size = await self._store.remove(digest)
        except Unavailable as error:
            log.warning("eviction_failed", digest=str(digest), error=error.message)
            return None
        if size is None:
            reader = await self._store.open(digest)
            if reader is not None:
                reader.close()
                return None
        return 0 if size is None else 1
