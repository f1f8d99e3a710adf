"""Eviction, scrubbing, and the keeper that does both in time."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from facade.errors import Unavailable
from facade.oci.digest import Digest
from facade.serving.blobs.duty import Duty
from facade.serving.blobs.eviction import Bounds, Evictor
from facade.serving.blobs.held import keep
from facade.serving.blobs.keeper import (
    DUTY_SECONDS,
    FLUSH_SECONDS,
    LOOK_SECONDS,
    REST_SECONDS,
    SCRUB_PAUSE_SECONDS,
    StoreKeeper,
)
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.possession import PossessionIndex
from facade.serving.blobs.scrub import Scrubber
from facade.wings import CacheStatus
from tests.support.blob_store import MemoryStore
from tests.support.blobs import CountingObserver, key_of, make_content, make_executor
from tests.support.clock import FakeClock

SIZE = 1000


class Attic:
    """Tells fixed numbers and what it was asked."""

    def __init__(self) -> None:
        self.swept: list[float] = []

    def quarantined(self) -> int:
        return 3

    def sweep_partials(self, older_than: float) -> int:
        self.swept.append(older_than)
        return 0


@dataclass
class Upkeep:
    store: MemoryStore
    index: PossessionIndex
    clock: FakeClock
    observer: CountingObserver
    evictor: Evictor
    scrubber: Scrubber
    keeper: StoreKeeper
    attic: Attic
    wanted: set[Digest]
    spoiled: list[Digest]
    partials: list[int]
    executor: ThreadPoolExecutor

    async def add(self, count: int) -> list[Digest]:
        """Objects of SIZE bytes, each used a second later than the one before."""
        digests = []
        for number in range(count):
            content = make_content(SIZE, seed=number)
            key = key_of(content)
            ingest = await self.store.ingest(key, SIZE, lambda _: None)
            ingest.write(memoryview(content))
            ingest.publish()
            await ingest.close(keep=False)
            await self.index.add(key, SIZE)
            self.clock.advance(1)
            digests.append(key.digest)
        return digests

    def keeper_with(
        self, duty: Callable[[], bool] = lambda: True, traces: Callable[[], object] = object
    ) -> StoreKeeper:
        """Another process's keeper of the same store."""
        return StoreKeeper(
            evictor=self.evictor,
            scrubber=self.scrubber,
            order=self.index,
            attic=self.attic,
            bounds=Bounds(10 * SIZE),
            in_flight=lambda: 0,
            clock=self.clock,
            executor=self.executor,
            duty=duty,
            traces=traces,
        )

    def kept(self) -> set[Digest]:
        return set(self.store.kept)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with make_executor() as executor:
        yield executor


@pytest.fixture
async def upkeep(tmp_path: Path, executor: ThreadPoolExecutor) -> AsyncIterator[Upkeep]:
    clock, store, observer, attic = FakeClock(), MemoryStore(), CountingObserver(), Attic()
    index = PossessionIndex.at(tmp_path / "index.db", clock, commit_seconds=0.0)
    bounds = Bounds(10 * SIZE, high=0.8, low=0.5)
    wanted: set[Digest] = set()
    spoiled: list[Digest] = []
    partials = [0]

    async def count_partials() -> int:
        return sum(partials)

    evictor = Evictor(
        store=store,
        order=index,
        bounds=bounds,
        observer=observer,
        wanted=lambda: wanted,
        partials=count_partials,
    )
    scrubber = Scrubber(
        store=store,
        register=index,
        clock=clock,
        executor=executor,
        spoiled=lambda digest, detail: spoiled.append(digest),
    )
    keeper = StoreKeeper(
        evictor=evictor,
        scrubber=scrubber,
        order=index,
        attic=attic,
        bounds=bounds,
        in_flight=lambda: 7,
        clock=clock,
        executor=executor,
    )
    yield Upkeep(
        *(store, index, clock, observer, evictor, scrubber, keeper),
        *(attic, wanted, spoiled, partials, executor),
    )
    await index.close()


async def test_within_bounds_nothing_goes(upkeep: Upkeep) -> None:
    digests = await upkeep.add(8)
    assert await upkeep.evictor.room() == 0
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    await upkeep.clock.run_for(LOOK_SECONDS)
    await asyncio.sleep(0.05)
    assert upkeep.kept() == set(digests)
    assert upkeep.observer.count("evicted") == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_above_the_high_mark_the_longest_unused_go_down_to_the_low_one(
    upkeep: Upkeep,
) -> None:
    digests = await upkeep.add(9)
    upkeep.index.touch(digests[0])
    assert await upkeep.evictor.room() < 0
    assert await upkeep.evictor.evict() == (4, 4 * SIZE)
    assert upkeep.kept() == {digests[0], *digests[5:]}
    assert upkeep.observer.seen == [("evicted", 4, 4 * SIZE)]
    assert await upkeep.index.totals() == (5, 5 * SIZE)
    assert not await upkeep.index.has(key_of(make_content(SIZE, seed=1)))


async def test_objects_make_room_for_what_is_under_way(upkeep: Upkeep) -> None:
    digests = await upkeep.add(5)
    upkeep.partials.append(3 * SIZE)
    assert await upkeep.evictor.room() == 0
    upkeep.partials.append(1)
    assert await upkeep.evictor.room() < 0
    assert await upkeep.evictor.evict() == (4, 4 * SIZE)
    assert upkeep.kept() == {digests[4]}


async def test_the_signed_go_last(upkeep: Upkeep) -> None:
    digests = await upkeep.add(9)
    upkeep.wanted.update(digests[:4])
    assert await upkeep.evictor.evict() == (4, 4 * SIZE)
    assert upkeep.kept() == {*digests[:4], digests[8]}
    upkeep.wanted.update(digests)
    more = await upkeep.add(9)
    upkeep.wanted.update(more)
    await upkeep.evictor.evict()
    assert len(upkeep.kept()) == 5


async def test_what_is_in_use_stays(upkeep: Upkeep) -> None:
    digests = await upkeep.add(9)
    readers = [await upkeep.store.open(digest) for digest in digests[:7]]
    assert await upkeep.evictor.evict() == (2, 2 * SIZE)
    assert upkeep.kept() == set(digests[:7])
    for reader in readers:
        assert reader is not None
        reader.close()


async def test_what_is_gone_already_is_only_forgotten(upkeep: Upkeep) -> None:
    digests = await upkeep.add(9)
    for digest in digests[:4]:
        await upkeep.store.quarantine(digest)
    assert await upkeep.evictor.evict() == (0, 4 * SIZE)
    assert upkeep.kept() == set(digests[4:])


async def test_many_objects_are_gone_through_in_pages(upkeep: Upkeep) -> None:
    digests = await upkeep.add(270)
    upkeep.wanted.update(digests[:260])
    await upkeep.evictor.evict()
    assert upkeep.kept() == set(digests[255:260])


def test_bounds_of_a_disk(tmp_path: Path) -> None:
    bounds = Bounds.of_disk(tmp_path, held=5)
    assert 5 < bounds.stop < bounds.start < bounds.max_bytes


async def test_a_pass_over_good_objects(upkeep: Upkeep) -> None:
    await upkeep.add(3)
    assert await upkeep.scrubber.scrub() == (3, 0)
    assert upkeep.spoiled == []


async def test_a_rotten_object_is_quarantined_and_told(upkeep: Upkeep) -> None:
    digests = await upkeep.add(3)
    upkeep.store.flip(digests[1], 500)
    assert await upkeep.scrubber.scrub() == (3, 1)
    assert upkeep.spoiled == [digests[1]]
    assert set(upkeep.store.quarantined) == {digests[1]}
    assert await upkeep.index.totals() == (2, 2 * SIZE)
    assert await upkeep.scrubber.scrub() == (2, 0)


async def test_what_another_set_aside_during_a_pass_is_counted_and_what_was_removed_is_not(
    upkeep: Upkeep,
) -> None:
    digests = await upkeep.add(4)
    # The pass rests after each object, when its list is made already.
    task = asyncio.create_task(upkeep.scrubber.scrub(bytes_per_second=SIZE))
    await upkeep.clock.wait_for_sleepers()
    await upkeep.store.quarantine(digests[1])
    await upkeep.store.remove(digests[2])
    for _ in range(2):
        await upkeep.clock.wait_for_sleepers()
        upkeep.clock.advance(1)
    assert await task == (3, 1)
    assert upkeep.spoiled == []  # whoever set it aside told so
    assert (await upkeep.index.totals())[0] == 3  # the removed one is eviction's to forget


async def test_what_turns_out_unfit_on_opening_is_counted(
    tmp_path: Path, upkeep: Upkeep, executor: ThreadPoolExecutor
) -> None:
    store = LocalStore.at(tmp_path / "local", executor)
    for number in range(3):
        content = make_content(SIZE, seed=number)
        await keep(store, key_of(content), content, executor)
        await upkeep.index.add(key_of(content), SIZE)
    digest = key_of(content).digest
    os.truncate(tmp_path / "local" / "blobs" / "sha256" / digest.hex[:2] / digest.hex, SIZE - 1)
    scrubber = Scrubber(
        store=store,
        register=upkeep.index,
        clock=upkeep.clock,
        executor=executor,
        spoiled=lambda *_: None,
    )
    assert await scrubber.scrub() == (3, 1)
    assert await upkeep.index.totals() == (2, 2 * SIZE)
    store.close()


async def test_objects_that_the_index_lost_come_back_into_its_order(upkeep: Upkeep) -> None:
    digests = await upkeep.add(3)
    for digest in digests:
        await upkeep.index.forget([digest])
    await upkeep.scrubber.scrub()
    assert await upkeep.index.totals() == (3, 3 * SIZE)


async def test_an_idle_pass_keeps_its_pace(upkeep: Upkeep) -> None:
    await upkeep.add(3)
    task = asyncio.create_task(upkeep.scrubber.scrub(bytes_per_second=100))
    for _ in range(3):
        await upkeep.clock.wait_for_sleepers()
        assert not task.done()
        upkeep.clock.advance(10)
    assert await task == (3, 0)
    assert upkeep.clock.slept == [10.0] * 3


async def test_the_keeper_evicts_when_told_of_growth(upkeep: Upkeep) -> None:
    await upkeep.add(9)
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    assert len(upkeep.kept()) == 9
    upkeep.keeper.grown(1)
    async with asyncio.timeout(20):
        while len(upkeep.kept()) > 5:  # noqa: ASYNC110 - real time, for real threads
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_look_the_keeper_rests_and_then_looks_for_all_that_came_meanwhile(
    upkeep: Upkeep,
) -> None:
    await upkeep.add(5)
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    upkeep.keeper.grown(1)
    await asyncio.sleep(0.05)  # it looked: there is room for three
    upkeep.partials[0] = 5 * SIZE
    upkeep.keeper.grown(5 * SIZE)
    await upkeep.clock.wait_for_sleepers(4)  # and rests
    assert len(upkeep.kept()) == 5
    await upkeep.clock.run_for(REST_SECONDS)
    async with asyncio.timeout(20):
        while len(upkeep.kept()) == 5:  # noqa: ASYNC110 - real time, for real threads
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_keeper_does_not_look_while_what_came_surely_fits(upkeep: Upkeep) -> None:
    looks = [0]
    ask = upkeep.evictor._partials

    async def counted() -> int:
        looks[0] += 1
        return await ask()

    async def looked() -> int:
        await upkeep.clock.run_for(REST_SECONDS)
        await asyncio.sleep(0.05)
        return looks[0]

    upkeep.evictor._partials = counted
    await upkeep.add(5)
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    upkeep.keeper.grown(SIZE)  # nothing is known yet
    assert await looked() == 1
    upkeep.keeper.grown(2 * SIZE)
    upkeep.keeper.grown(SIZE)
    assert await looked() == 1
    upkeep.keeper.grown(1)
    assert await looked() == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_comes_while_the_keeper_looks_is_looked_for_again(upkeep: Upkeep) -> None:
    """That look may have counted it or not."""
    looks, asked = [0], asyncio.Event()
    asked.set()
    ask = upkeep.evictor._partials

    async def slowly() -> int:
        looks[0] += 1
        await asked.wait()
        return await ask()

    upkeep.evictor._partials = slowly
    await upkeep.add(5)
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    upkeep.keeper.grown(1)
    await asyncio.sleep(0.05)  # there is room for three
    asked.clear()
    upkeep.keeper.grown(4 * SIZE)
    await upkeep.clock.run_for(REST_SECONDS)
    await asyncio.sleep(0.05)
    assert looks[0] == 2
    upkeep.keeper.grown(1)
    asked.set()
    await asyncio.sleep(0.05)
    await upkeep.clock.run_for(REST_SECONDS)
    await asyncio.sleep(0.05)
    assert looks[0] == 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_looks_again_when_another_process_left_traces_or_there_was_no_room(
    upkeep: Upkeep,
) -> None:
    looks, traces = [0], [0]
    ask = upkeep.evictor._partials

    async def counted() -> int:
        looks[0] += 1
        return await ask()

    upkeep.evictor._partials = counted

    async def looked(count: int) -> None:
        async with asyncio.timeout(20):
            while looks[0] < count:
                await upkeep.clock.run_for(LOOK_SECONDS)
                await asyncio.sleep(0.001)
        for _ in range(5):
            await upkeep.clock.run_for(LOOK_SECONDS)
            await asyncio.sleep(0.005)

    digests = await upkeep.add(8)
    task = asyncio.create_task(upkeep.keeper_with(traces=lambda: traces[0]).run())
    await looked(1)
    assert looks[0] == 1, "it fitted, and nothing came since"
    traces[0] += 1
    await looked(2)
    assert looks[0] == 2
    upkeep.partials[0] = SIZE
    readers = [await upkeep.store.open(digest) for digest in digests]  # none can be evicted
    traces[0] += 1
    await looked(9)  # it tries as long as there is no room
    assert upkeep.kept() == set(digests)
    for reader in readers:
        assert reader is not None
        reader.close()
    async with asyncio.timeout(20):
        while len(upkeep.kept()) == len(digests):
            await upkeep.clock.run_for(LOOK_SECONDS)
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_the_index_was_lost_everything_counts_again_at_once(upkeep: Upkeep) -> None:
    await upkeep.index.forget(await upkeep.add(9))
    assert await upkeep.index.totals() == (0, 0)
    task = asyncio.create_task(upkeep.keeper.run())
    async with asyncio.timeout(20):
        while await upkeep.index.totals() != (9, 9 * SIZE):  # noqa: ASYNC110 - real threads
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert upkeep.spoiled == []


async def test_a_keeper_whose_index_is_damaged_makes_it_anew_and_counts_everything_again(
    upkeep: Upkeep, tmp_path: Path
) -> None:
    await upkeep.add(9)
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    for path in (tmp_path / "index.db", tmp_path / "index.db-wal"):
        os.truncate(path, path.stat().st_size // 2)
        path.write_bytes(b"x" * path.stat().st_size)
    upkeep.keeper.grown(1)  # eviction is what meets it
    held: object = None
    async with asyncio.timeout(20):
        while held != (5, 5 * SIZE):  # all is counted, and what was too much is evicted
            await upkeep.clock.run_for(1)
            await asyncio.sleep(0.001)
            with contextlib.suppress(Unavailable):
                held = await upkeep.index.totals()
    assert len(upkeep.kept()) == 5
    assert upkeep.spoiled == []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_keeper_writes_use_times_sweeps_and_scrubs(upkeep: Upkeep) -> None:
    digests = await upkeep.add(3)
    upkeep.store.flip(digests[2], 1)
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    upkeep.index.touch(digests[0])
    upkeep.clock.advance(FLUSH_SECONDS)
    async with asyncio.timeout(20):
        while (await upkeep.index.least_recently_used(1))[0][0] == digests[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    upkeep.clock.advance(SCRUB_PAUSE_SECONDS)
    async with asyncio.timeout(20):
        while not upkeep.spoiled:
            upkeep.clock.advance(1)
            await asyncio.sleep(0.001)
    assert len(upkeep.attic.swept) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_of_two_keepers_one_works_until_its_process_is_gone(
    upkeep: Upkeep, tmp_path: Path
) -> None:
    first, second = Duty(tmp_path / "keeper.lock"), Duty(tmp_path / "keeper.lock")
    assert first.take()
    assert first.take()
    await upkeep.add(9)
    task = asyncio.create_task(upkeep.keeper_with(second.take).run())
    await upkeep.clock.wait_for_sleepers(2)
    for _ in range(3):
        await upkeep.clock.run_for(DUTY_SECONDS)
        await upkeep.clock.wait_for_sleepers(2)
    assert len(upkeep.kept()) == 9
    first.close()
    async with asyncio.timeout(20):
        while len(upkeep.kept()) > 5:
            await upkeep.clock.run_for(LOOK_SECONDS)
            await asyncio.sleep(0.001)
    assert not first.take()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    second.close()


async def test_the_keeper_goes_on_when_the_index_fails(upkeep: Upkeep, tmp_path: Path) -> None:
    task = asyncio.create_task(upkeep.keeper.run())
    await upkeep.clock.wait_for_sleepers(3)
    drop_objects(tmp_path / "index.db")
    upkeep.keeper.grown(1)
    upkeep.clock.advance(SCRUB_PAUSE_SECONDS)
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def drop_objects(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE object")
        database.execute("DROP TABLE total")
    database.close()


async def test_status_verify_and_prune(upkeep: Upkeep) -> None:
    await upkeep.add(9)
    assert await upkeep.keeper.status() == CacheStatus(
        objects=9, bytes=9 * SIZE, max_bytes=10 * SIZE, in_flight=7, quarantined=3
    )
    assert await upkeep.keeper.verify() == (9, 0)
    assert await upkeep.keeper.prune() == (4, 4 * SIZE)
