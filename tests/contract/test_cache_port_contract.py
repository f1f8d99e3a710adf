"""What every `CachePort` promises: in one process, over a Unix socket, and for many workers as one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import FacadeError, Unavailable, Upstream
from facade.link.workers_port import WorkersCachePort
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.serving.blobs.port import BlobSource
from facade.serving.cache_port import InProcessCachePort
from facade.upstream.connection import Connection, ConnectionSettings
from facade.wings import CachePort, CacheStatus
from tests.support.ports import cache_linked

CONNECTION = Connection(
    "c1", RegistryHost("ghcr.io"), "static", 3, ConnectionSettings(ca_pem="-----BEGIN…")
)
REPOSITORY = Repository("org/app")
DIGEST = Digest.of(b"x")


@dataclass
class Serving:
    """A serving wing's cache, as far as its port looks; and what was asked of it."""

    error: FacadeError | None = None
    refreshing: Callable[[], Awaitable[None]] | None = None
    fetched: list[tuple[Connection, Repository, Digest, int]] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
    ) -> bool:
        self.fetched.append((connection, repository, digest, size))
        await self._work()
        return True

    async def holds(self, connection: Connection, repository: Repository, digest: Digest) -> bool:
        return digest == DIGEST

    def blob(self, connection: Connection, repository: Repository, digest: Digest) -> BlobSource:
        raise_if_used: BlobSource = object()  # type: ignore[assignment]
        return raise_if_used

    async def status(self) -> CacheStatus:
        await self._work()
        return CacheStatus(1, 2, None, 3, 4)

    async def verify(self) -> tuple[int, int]:
        await self._work()
        return (7, 1)

    async def prune(self) -> tuple[int, int]:
        await self._work()
        return (2, 2**40)

    async def refresh(self) -> None:
        if self.refreshing is not None:
            await self.refreshing()

    async def _work(self) -> None:
        self.started.set()
        try:
            if self.gate is not None:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error

    def port(self) -> CachePort:
        return InProcessCachePort(
            content=self, sources=self, keeper=self, refresh=self.refresh, clock=SystemClock()
        )


@dataclass
class Parts:
    port: CachePort
    serving: Serving


@pytest.fixture(params=["in process", "socket", "workers"])
async def parts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Parts]:
    serving = Serving()
    async with AsyncExitStack() as stack:
        port = serving.port()
        if request.param != "in process":
            linked = await stack.enter_async_context(cache_linked(port, tmp_path))
            port = linked
        if request.param == "workers":
            port = WorkersCachePort(lambda: [linked])
        yield Parts(port, serving)


async def test_a_refresh_that_succeeds_is_in_use(parts: Parts) -> None:
    assert await parts.port.refresh() is True


async def test_a_refresh_that_fails_is_pending(parts: Parts) -> None:
    async def fail() -> None:
        raise Unavailable("no", reason=Reason.METADATA_UNAVAILABLE)

    parts.serving.refreshing = fail
    assert await parts.port.refresh() is False


@pytest.mark.slow
async def test_a_refresh_that_hangs_is_pending_after_five_seconds(parts: Parts) -> None:
    parts.serving.refreshing = asyncio.Event().wait  # type: ignore[assignment]
    async with asyncio.timeout(30):
        assert await parts.port.refresh() is False


async def test_the_status_arrives_as_it_was_given(parts: Parts) -> None:
    assert await parts.port.status() == CacheStatus(1, 2, None, 3, 4)


async def test_warming_tells_what_came_of_it(parts: Parts) -> None:
    warmed = await parts.port.warm(CONNECTION, REPOSITORY, DIGEST, 7)
    assert (warmed.digest, warmed.cached, warmed.bytes, warmed.error) == (DIGEST, True, 7, None)
    assert parts.serving.fetched == [(CONNECTION, REPOSITORY, DIGEST, 7)]


async def test_looking_whether_it_is_there_fetches_nothing(parts: Parts) -> None:
    there = await parts.port.warm(CONNECTION, REPOSITORY, DIGEST, 7, fetch=False)
    other = await parts.port.warm(CONNECTION, REPOSITORY, Digest.of(b"y"), 7, fetch=False)
    assert (there.cached, other.cached) == (True, False)
    assert parts.serving.fetched == []


async def test_warming_tells_a_failure_instead_of_raising(parts: Parts) -> None:
    parts.serving.error = Upstream("It is away.", reason=Reason.UPSTREAM_UNREACHABLE)
    warmed = await parts.port.warm(CONNECTION, REPOSITORY, DIGEST, 7)
    assert (warmed.cached, warmed.error) == (False, "It is away.")


async def test_the_keeper_answers_for_the_store(parts: Parts) -> None:
    assert await parts.port.verify() == (7, 1)
    assert await parts.port.prune() == (2, 2**40)


async def test_a_failure_arrives_as_it_was_raised(parts: Parts) -> None:
    parts.serving.error = Unavailable("The index is locked.", reason=Reason.INTERNAL)
    for ask in (parts.port.status, parts.port.verify, parts.port.prune):
        with pytest.raises(Unavailable, match="The index is locked"):
            await ask()


async def test_a_caller_that_leaves_ends_the_job(parts: Parts) -> None:
    parts.serving.gate = asyncio.Event()
    leaving = asyncio.create_task(parts.port.verify())
    async with asyncio.timeout(20):
        await parts.serving.started.wait()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await parts.serving.cancelled.wait()
    parts.serving.gate = None
    assert await parts.port.verify() == (7, 1), "the next one is not concerned"
