"""Two stores on one folder, as two processes have them: what one reads, removes or sets aside, the
other respects or notices."""

import asyncio
import fcntl
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.opened import LOCKED_PAUSE_SECONDS, LOCKED_SECONDS, LocalReader
from tests.support.blobs import key_of, make_content, make_executor
from tests.support.clock import FakeClock

CONTENT = make_content(1000)
KEY = key_of(CONTENT)
DIGEST = KEY.digest


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[LocalStore, LocalStore]]:
    with make_executor() as executor:
        one, other = LocalStore.at(tmp_path, executor), LocalStore.at(tmp_path, executor)
        yield one, other
        one.close()
        other.close()


async def publish(store: LocalStore) -> None:
    ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
    ingest.write(memoryview(CONTENT))
    ingest.publish()
    await ingest.close(keep=False)


async def opened(store: LocalStore) -> LocalReader:
    reader = await store.open(DIGEST)
    assert reader is not None
    return reader


async def test_what_one_reads_the_other_does_not_remove(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    first, second = await opened(one), await opened(one)
    first.close()
    assert await other.remove(DIGEST) is None
    assert bytes(await second.read(0, 1000)) == CONTENT
    second.close()  # it stays open, idle
    assert await other.remove(DIGEST) == len(CONTENT)
    assert await one.open(DIGEST) is None


async def test_a_reader_that_comes_back_to_an_idle_object_is_respected(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    (await opened(one)).close()
    reader = await opened(one)
    assert await other.remove(DIGEST) is None
    reader.close()


async def test_what_one_set_aside_the_other_does_not_serve(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    (await opened(other)).close()
    await one.quarantine(DIGEST)
    assert await other.open(DIGEST) is None


async def test_a_fresh_object_is_not_set_aside_for_the_faults_of_the_former(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    former = await opened(other)
    await one.quarantine(DIGEST)
    await publish(one)
    await other.quarantine(DIGEST)
    former.close()
    reader = await opened(other)
    assert bytes(await reader.read(0, 1000)) == CONTENT
    reader.close()


async def test_an_object_that_another_process_holds_locked_costs_no_thread(tmp_path: Path) -> None:
    clock = FakeClock()
    with ThreadPoolExecutor(1) as executor:
        store = LocalStore.at(tmp_path, executor, clock=clock)
        await publish(store)
        (path,) = (path for path in (tmp_path / "blobs").rglob(DIGEST.hex))
        with path.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            opening = asyncio.create_task(store.open(DIGEST))
            async with asyncio.timeout(20):
                while not clock.sleepers:  # noqa: ASYNC110 - threads
                    await asyncio.sleep(0.01)
                assert await store.open(key_of(b"other").digest) is None, "the thread is free"
                fcntl.flock(held, fcntl.LOCK_UN)
                while not opening.done():
                    await clock.run_for(LOCKED_PAUSE_SECONDS)
                    await asyncio.sleep(0.01)
            reader = await opening
            assert reader is not None
            reader.close()
            store.close()
            fcntl.flock(held, fcntl.LOCK_EX)
            hung = asyncio.create_task(store.open(DIGEST))
            async with asyncio.timeout(20):
                while not hung.done():
                    await clock.run_for(LOCKED_SECONDS / 4)
                    await asyncio.sleep(0.01)
            assert await hung is None
        store.close()


def descriptors() -> list[str]:
    """Those that this process has open."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


class Held(ThreadPoolExecutor):
    """Its first job ends only when it is let go."""

    def __init__(self) -> None:
        super().__init__(1)
        self.done, self.go = threading.Event(), threading.Event()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        def held() -> Any:
            result = fn(*args, **kwargs)
            self.done.set()
            self.go.wait(20)
            return result

        return super().submit(held)


async def test_who_stops_following_in_the_middle_of_it_leaves_nothing_open(tmp_path: Path) -> None:
    with Held() as executor, make_executor() as ready:
        writing = LocalStore.at(tmp_path, ready)
        ingest = await writing.ingest(KEY, len(CONTENT), lambda _: None)
        before = descriptors()
        following = asyncio.create_task(LocalStore.at(tmp_path, executor).follow(KEY, len(CONTENT)))
        await asyncio.to_thread(executor.done.wait, 20)
        following.cancel()
        await asyncio.sleep(0)
        executor.go.set()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert descriptors() == before
        await ingest.close(keep=False)
        writing.close()


async def test_what_both_have_under_way_counts_against_one_bound(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    first = await one.ingest(KEY, 1_000_000, lambda _: None)
    assert other.partials.count() == 1_000_000
    second = await other.ingest(key_of(b"other"), 5, lambda _: None)
    assert one.partials.count() == 1_000_005
    first.write(memoryview(CONTENT))
    assert one.sweep_partials(older_than=4e9) == 0
    assert other.sweep_partials(older_than=4e9) == 0
    await first.close(keep=True)
    assert other.partials.count() == len(CONTENT) + 5
    await second.close(keep=False)
