"""What the control wing may ask of the cache, in the same process."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from facade.errors import Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.serving.blobs.port import BlobSource
from facade.serving.cache_port import REFRESH_SECONDS, InProcessCachePort
from facade.upstream.connection import Connection
from facade.wings import CacheStatus
from tests.support.clock import FakeClock

CONNECTION = Connection("c1", RegistryHost("ghcr.io"), "anonymous")
REPOSITORY = Repository("org/app")
DIGEST = Digest.of(b"x")


class _Content:
    def __init__(self, error: Upstream | None = None) -> None:
        self.error = error
        self.full = False

    async def fetch(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
    ) -> bool:
        if self.error is not None:
            raise self.error
        return not self.full

    async def holds(self, connection: Connection, repository: Repository, digest: Digest) -> bool:
        return digest == DIGEST


class _Sources:
    def blob(self, connection: Connection, repository: Repository, digest: Digest) -> BlobSource:
        raise_if_used: BlobSource = object()  # type: ignore[assignment]
        return raise_if_used


class _Keeper:
    async def status(self) -> CacheStatus:
        return CacheStatus(1, 2, 3, 0, 0)

    async def verify(self) -> tuple[int, int]:
        return (1, 0)

    async def prune(self) -> tuple[int, int]:
        return (0, 0)


def _port(
    refresh: Callable[[], Awaitable[None]], clock: FakeClock, error: Upstream | None = None
) -> InProcessCachePort:
    return InProcessCachePort(
        content=_Content(error), sources=_Sources(), keeper=_Keeper(), refresh=refresh, clock=clock
    )


async def _done() -> None:
    return None


async def test_a_refresh_that_succeeds_is_in_use() -> None:
    assert await _port(_done, FakeClock()).refresh() is True


async def test_a_refresh_that_fails_is_pending() -> None:
    async def fail() -> None:
        raise Unavailable("no", reason=Reason.METADATA_UNAVAILABLE)

    assert await _port(fail, FakeClock()).refresh() is False


async def test_a_defect_in_a_refresh_is_not_hidden() -> None:
    async def break_down() -> None:
        raise RuntimeError("defect")

    with pytest.raises(RuntimeError):
        await _port(break_down, FakeClock()).refresh()


async def test_a_refresh_that_hangs_is_pending_after_five_seconds_and_goes_on() -> None:
    clock = FakeClock()
    finish = asyncio.Event()
    done = asyncio.Event()

    async def hang() -> None:
        await finish.wait()
        done.set()

    asking = asyncio.create_task(_port(hang, clock).refresh())
    await clock.wait_for_sleepers(1)
    await clock.run_for(REFRESH_SECONDS)
    assert await asking is False
    finish.set()
    await asyncio.wait_for(done.wait(), 5)


async def test_warming_tells_what_came_of_it() -> None:
    warmed = await _port(_done, FakeClock()).warm(CONNECTION, REPOSITORY, DIGEST, 7)
    assert (warmed.cached, warmed.bytes, warmed.error) == (True, 7, None)


async def test_looking_whether_it_is_there_fetches_nothing() -> None:
    port = _port(_done, FakeClock(), Upstream("asked", reason=Reason.UPSTREAM_UNREACHABLE))
    there = await port.warm(CONNECTION, REPOSITORY, DIGEST, 7, fetch=False)
    other = await port.warm(CONNECTION, REPOSITORY, Digest.of(b"y"), 7, fetch=False)
    assert (there.cached, there.bytes, there.error) == (True, 7, None)
    assert (other.cached, other.bytes, other.error) == (False, 0, None)


async def test_warming_tells_a_failure_instead_of_raising() -> None:
    error = Upstream("the registry is away", reason=Reason.UPSTREAM_UNREACHABLE)
    warmed = await _port(_done, FakeClock(), error).warm(CONNECTION, REPOSITORY, DIGEST, 7)
    assert (warmed.cached, warmed.error) == (False, "the registry is away")


async def test_warming_a_full_cache_is_no_success() -> None:
    content = _Content()
    content.full = True
    port = InProcessCachePort(
        content=content, sources=_Sources(), keeper=_Keeper(), refresh=_done, clock=FakeClock()
    )
    warmed = await port.warm(CONNECTION, REPOSITORY, DIGEST, 7)
    assert (warmed.cached, warmed.bytes) == (False, 0)
    assert "no room" in str(warmed.error)


async def test_the_keeper_answers_for_the_store() -> None:
    port = _port(_done, FakeClock())
    assert (await port.status()).bytes == 2
    assert await port.verify() == (1, 0)
    assert await port.prune() == (0, 0)
