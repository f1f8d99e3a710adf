"""What the control wing may ask of this one, in the same process (`wings.CachePort`).

Guarantees: `refresh` returns True only when new pulls are decided by what was current when it was
asked; it waits at most `REFRESH_SECONDS`. Warming goes the way of every pull: verified, one transfer,
possession recorded.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from facade.clock import Clock
from facade.errors import FacadeError
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.serving.blobs.port import BlobSource
from facade.upstream.connection import Connection
from facade.wings import CacheStatus, WarmResult

REFRESH_SECONDS = 5.0


class Content(Protocol):
    """`blobs.cache.BlobCache`."""

    async def fetch(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
        /,
    ) -> bool:
        """Bring it in; returns whether it is there now."""
        ...

    async def holds(
        self, connection: Connection, repository: Repository, digest: Digest, /
    ) -> bool:
        """Whether it is there for that repository. Asks nobody."""
        ...


class BlobSources(Protocol):
    """`pulls.sources.Sources`."""

    def blob(self, connection: Connection, repository: Repository, digest: Digest) -> BlobSource:
        """Where its bytes come from."""
        ...


class Keeper(Protocol):
    """Looks after the store as a whole."""

    async def status(self) -> CacheStatus:
        """What it holds."""
        ...

    async def verify(self) -> tuple[int, int]:
        """(objects checked, objects quarantined)."""
        ...

    async def prune(self) -> tuple[int, int]:
        """(objects, bytes) removed."""
        ...


class InProcessCachePort:
    """Implements `wings.CachePort` for a serving wing in this process.

    Arguments:
        refresh: takes up new metadata; the deny list and connections are read on every request.
    """

    def __init__(
        self,
        *,
        content: Content,
        sources: BlobSources,
        keeper: Keeper,
        refresh: Callable[[], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._content = content
        self._sources = sources
        self._keeper = keeper
        self._refresh = refresh
        self._clock = clock

    async def refresh(self) -> bool:
        """Take up what changed; False when that takes longer than `REFRESH_SECONDS` or fails."""
        work = asyncio.ensure_future(self._refresh())
        alarm = asyncio.ensure_future(self._clock.sleep(REFRESH_SECONDS))
        try:
            await asyncio.wait((work, alarm), return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
        if not work.done():
            work.add_done_callback(_seen)  # it goes on; the next refresh joins or follows it
            return False
        return not isinstance(work.exception(), FacadeError) and work.result() is None

    async def status(self) -> CacheStatus:
        """What the cache holds."""
        return await self._keeper.status()

    async def warm(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        *,
        fetch: bool = True,
    ) -> WarmResult:
        """Fetch one blob into the cache, verified; a failure is told, not raised."""
        if not fetch:
            cached = await self._content.holds(connection, repository, digest)
            return WarmResult(digest, size if cached else 0, cached=cached)
        source = self._sources.blob(connection, repository, digest)
        try:
            cached = await self._content.fetch(connection, repository, digest, size, source)
        except FacadeError as error:
            return WarmResult(digest, 0, cached=False, error=error.message)
        if not cached:
            words = "It came whole, but the cache had no room to keep it."
            return WarmResult(digest, 0, cached=False, error=words)
        return WarmResult(digest, size, cached=True)

    async def verify(self) -> tuple[int, int]:
        """Re-hash everything: (objects checked, objects quarantined)."""
        return await self._keeper.verify()

    async def prune(self) -> tuple[int, int]:
        """Evict down to the low watermark: (objects, bytes) removed."""
        return await self._keeper.prune()


def _seen(work: "asyncio.Future[None]") -> None:
    """Mark a late failure as looked at; the refresher has logged it."""
    if not work.cancelled():
        work.exception()
