"""One cache port of all workers: who is asked, and what is made of the answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from facade.errors import Unavailable, Upstream
from facade.link.cache_client import SocketCachePort
from facade.link.workers_port import WorkersCachePort
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.connection import Connection
from facade.wings import CachePort, CacheStatus, WarmResult
from tests.support.ports import cache_linked

CONNECTION = Connection("c1", RegistryHost("ghcr.io"), "anonymous")
REPOSITORY = Repository("org/app")
PATIENCE = 60.0


@dataclass
class Cache:
    """A worker's cache, scripted."""

    in_flight: int = 0
    refreshed: bool = True
    hang: bool = False
    error: Exception | None = None
    asked: list[str] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def _do(self, what: str) -> None:
        self.asked.append(what)
        self.began.set()
        if self.hang:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error

    async def refresh(self) -> bool:
        await self._do("refresh")
        return self.refreshed

    async def status(self) -> CacheStatus:
        await self._do("status")
        return CacheStatus(10, 100, None, self.in_flight, 0)

    async def warm(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        *,
        fetch: bool = True,
    ) -> WarmResult:
        await self._do("warm")
        return WarmResult(digest, size, cached=True)

    async def verify(self) -> tuple[int, int]:
        await self._do("verify")
        return (3, 0)

    async def prune(self) -> tuple[int, int]:
        await self._do("prune")
        return (1, 2)


@dataclass
class Workers:
    caches: list[Cache]
    ports: list[SocketCachePort]
    stacks: list[AsyncExitStack]

    @property
    def port(self) -> WorkersCachePort:
        return WorkersCachePort(lambda: self.ports)

    async def end(self, number: int) -> None:
        """Its socket goes, with every connection."""
        await self.stacks[number].aclose()


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    made = Workers([], [], [])
    for number in range(3):
        cache, stack = Cache(in_flight=number + 1), AsyncExitStack()
        linked = cache_linked(cache, tmp_path, name=f"{number}.sock")
        made.ports.append(await stack.enter_async_context(linked))
        made.caches.append(cache)
        made.stacks.append(stack)
    yield made
    for stack in made.stacks:
        await stack.aclose()


async def test_a_refresh_is_done_when_all_say_so(workers: Workers) -> None:
    assert await workers.port.refresh() is True
    assert [cache.asked for cache in workers.caches] == [["refresh"]] * 3
    workers.caches[1].refreshed = False
    assert await workers.port.refresh() is False


async def test_a_refresh_is_pending_while_one_starts(workers: Workers) -> None:
    port = WorkersCachePort(lambda: workers.ports, settled=lambda: False)
    assert await port.refresh() is False
    assert [cache.asked for cache in workers.caches] == [["refresh"]] * 3


async def test_a_refresh_is_pending_while_one_worker_is_away_or_fails(workers: Workers) -> None:
    workers.caches[2].error = Unavailable("no", reason=Reason.INTERNAL)
    assert await workers.port.refresh() is False
    workers.caches[2].error = None
    await workers.end(0)
    assert await workers.port.refresh() is False


@pytest.mark.slow
async def test_a_refresh_waits_for_nobody_longer_than_five_seconds(workers: Workers) -> None:
    workers.caches[0].hang = True
    async with asyncio.timeout(PATIENCE):
        assert await workers.port.refresh() is False


async def test_transfers_are_summed_and_the_folder_is_one(workers: Workers) -> None:
    assert await workers.port.status() == CacheStatus(10, 100, None, 6, 0)
    await workers.end(1)
    assert (await workers.port.status()).in_flight == 4, "of those that answer"


async def test_the_next_worker_takes_over_a_job_of_one_that_ended(workers: Workers) -> None:
    workers.caches[0].hang = True
    verifying = asyncio.create_task(workers.port.verify())
    async with asyncio.timeout(PATIENCE):
        await workers.caches[0].began.wait()
        await workers.end(0)
        assert await verifying == (3, 0)
    assert workers.caches[1].asked == ["verify"]
    assert workers.caches[2].asked == []


async def test_a_failure_of_the_job_is_told_and_not_tried_elsewhere(workers: Workers) -> None:
    workers.caches[0].error = Unavailable("The index is locked.", reason=Reason.INTERNAL)
    with pytest.raises(Unavailable, match="The index is locked"):
        await workers.port.prune()
    assert workers.caches[1].asked == []


async def test_a_blob_is_always_warmed_by_the_same_worker_and_blobs_are_spread(
    workers: Workers,
) -> None:
    for number in range(30):
        digest = Digest.of(b"%d" % number)
        for _ in range(2):
            await workers.port.warm(CONNECTION, REPOSITORY, digest, 1)
    counts = [len(cache.asked) for cache in workers.caches]
    assert sum(counts) == 60
    assert all(count > 0 and count % 2 == 0 for count in counts), counts


async def test_a_defect_in_a_worker_is_told_without_its_words(workers: Workers) -> None:
    workers.caches[0].error = RuntimeError("canary-of-a-defect")
    with pytest.raises(Unavailable, match="a defect of its own") as caught:
        await workers.port.verify()
    assert "canary" not in caught.value.message


async def test_without_any_worker_it_says_so() -> None:
    nobody: list[CachePort] = []
    port = WorkersCachePort(lambda: nobody)
    assert await port.refresh() is False
    for ask in (port.status, port.verify, port.prune):
        with pytest.raises(Unavailable, match="No serving process runs just now"):
            await ask()
    with pytest.raises(Unavailable, match="No serving process runs just now"):
        await port.warm(CONNECTION, REPOSITORY, Digest.of(b"x"), 1)


async def test_with_all_workers_away_it_says_who_does_not_answer(workers: Workers) -> None:
    for number in range(3):
        await workers.end(number)
    for ask in (workers.port.status, workers.port.verify):
        with pytest.raises(Unavailable, match="A serving process does not answer just now"):
            await ask()


async def test_samples_and_findings_pass_as_they_are(tmp_path: Path) -> None:
    samples = bytes(range(256)) * 4096

    def broken() -> bytes:
        raise Upstream("no", reason=Reason.DEADLINE)

    async with cache_linked(Cache(), tmp_path, metrics=lambda: samples, health=broken) as port:
        assert await port.samples() == samples
        with pytest.raises(Upstream):
            await port.health()
