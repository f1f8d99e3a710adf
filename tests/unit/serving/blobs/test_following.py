"""Two caches on one folder, as two processes have them: one fetches, the other reads along.

`flock` tells open files apart, not processes: all but the death of a process can be tried in one.
"""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from facade.clock import SystemClock
from facade.errors import Integrity, Unavailable
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.port import BLOCK_BYTES
from facade.serving.blobs.sharing import MAX_FOLLOW_SECONDS, SILENT_SECONDS, Tail, read_along
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blobs import (
    CONNECTION,
    MEBI,
    REPOSITORY,
    Bench,
    LateStore,
    Reading,
    get,
    idle,
    key_of,
    make_content,
    open_cache,
    read_all,
    writer,
)
from tests.support.clock import FakeClock, settle

CONTENT = make_content(3 * MEBI + 17)
KEY = key_of(CONTENT)
HOLDBACK = 64 * 1024
NONE = ScriptedSource(b"")
"""Whoever asks it is found out."""


@asynccontextmanager
async def two_caches(
    root: Path, limits: TransferLimits | None = None
) -> AsyncIterator[tuple[Bench, Bench]]:
    async with (
        open_cache(root, clock=SystemClock(), limits=limits) as one,
        open_cache(root, clock=SystemClock(), limits=limits) as other,
    ):
        yield one, other


async def test_the_other_reads_along_and_fetches_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={2 * MEBI: gate}))
    async with two_caches(tmp_path) as (one, other):
        first = Reading(await get(one, source, CONTENT))
        await first.until(2 * MEBI)
        streams = [await get(other, NONE, CONTENT) for _ in range(3)]
        assert [stream.outcome for stream in streams] == ["join"] * 3
        assert [other.observer.count(name) for name in ("joined", "missed")] == [3, 0]
        second = [
            Reading(streams[0]),
            Reading(streams[1], MEBI, 2 * MEBI),
            Reading(streams[2], len(CONTENT) - 10),
        ]
        await second[0].until(2 * MEBI)
        assert not second[2].got
        gate.set()
        await asyncio.gather(first.task, *(each.task for each in second))
        assert [bytes(each.got) for each in second] == [
            *(CONTENT, CONTENT[MEBI : 2 * MEBI], CONTENT[-10:])
        ]
        await idle(other)
        late = await get(other, NONE, CONTENT)
        assert late.outcome == "hit"
        assert await read_all(late) == CONTENT
        assert source.opened == [(0, None)]
        assert (NONE.opened, NONE.confirmed) == ([], 0)


async def test_the_other_gets_no_byte_of_the_end_before_the_verdict(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={len(CONTENT): gate}))
    async with two_caches(tmp_path) as (one, other):
        first = Reading(await get(one, source, CONTENT))
        await first.until(MEBI)
        second = Reading(await get(other, NONE, CONTENT))
        await second.until(len(CONTENT) - HOLDBACK)
        await asyncio.sleep(0.1)
        assert len(second.got) == len(CONTENT) - HOLDBACK
        gate.set()
        await second.task
        assert second.got == CONTENT
        await first.task


@pytest.mark.parametrize("position", [0, len(CONTENT) // 2, len(CONTENT) - 1])
async def test_wrong_bytes_are_completed_in_neither_and_fetched_once(
    tmp_path: Path, position: int
) -> None:
    wrong = bytearray(CONTENT)
    wrong[position] ^= 1
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(content=bytes(wrong), gates={2 * MEBI: gate}))
    async with two_caches(tmp_path) as (one, other):
        first = Reading(await get(one, source, CONTENT))
        await first.until(MEBI)
        second = Reading(await get(other, NONE, CONTENT))
        await second.until(MEBI)
        gate.set()
        results = await asyncio.gather(first.task, second.task, return_exceptions=True)
        assert [type(result) for result in results] == [Integrity] * 2
        await idle(other)
        for bench in (one, other):
            with pytest.raises(Integrity, match="a moment ago"):
                await get(bench, NONE, CONTENT)
        assert list((tmp_path / "ingest").iterdir()) == []


async def test_content_that_is_too_short_is_not_fetched_again_by_a_follower(
    tmp_path: Path,
) -> None:
    gate, half = asyncio.Event(), CONTENT[: 2 * MEBI]
    source = ScriptedSource(CONTENT, Answer(content=half, total=None, gates={2 * MEBI: gate}))
    async with two_caches(tmp_path) as (one, other):
        first = Reading(await get(one, source, CONTENT))
        await first.until(MEBI)
        second = Reading(await get(other, NONE, CONTENT))
        await second.until(2 * MEBI)
        gate.set()
        results = await asyncio.gather(first.task, second.task, return_exceptions=True)
        assert [type(result) for result in results] == [Integrity] * 2
        assert NONE.opened == []


async def test_what_a_stopped_process_left_is_taken_over(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(gates={MEBI + 5: asyncio.Event()}))
    rest = ScriptedSource(CONTENT)
    async with two_caches(tmp_path) as (one, other):
        first = Reading(await get(one, source, CONTENT))
        await first.until(MEBI + 5)
        second = Reading(await get(other, rest, CONTENT))
        await second.until(MEBI + 5)
        await one.cache.close()
        await second.task
        assert second.got == CONTENT
        assert rest.opened == [(MEBI + 5, None)]
        with pytest.raises(Unavailable):
            await first.task
        await idle(other)
        assert list(other.store.objects()) == [(KEY.digest, len(CONTENT))]


async def test_one_of_two_followers_takes_over_and_the_other_follows_it(tmp_path: Path) -> None:
    stopped = ScriptedSource(CONTENT, Answer(gates={MEBI: asyncio.Event()}))
    sources = [ScriptedSource(CONTENT), ScriptedSource(CONTENT)]
    async with (
        two_caches(tmp_path) as (one, other),
        open_cache(tmp_path, clock=SystemClock()) as third,
    ):
        first = Reading(await get(one, stopped, CONTENT))
        await first.until(MEBI)
        readings = [
            Reading(await get(bench, source, CONTENT))
            for bench, source in zip((other, third), sources, strict=True)
        ]
        for each in readings:
            await each.until(MEBI)
        await one.cache.close()
        await asyncio.gather(*(each.task for each in readings))
        assert [bytes(each.got) for each in readings] == [CONTENT] * 2
        assert [*sources[0].opened, *sources[1].opened] == [(MEBI, None)]
        with pytest.raises(Unavailable):
            await first.task


async def test_a_restart_reaches_who_has_seen_nothing_and_cuts_who_has(tmp_path: Path) -> None:
    """A partial that power loss spoiled is found out at its end, and fetched from zero."""
    async with writer(tmp_path) as store:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(bytes(MEBI)))
        await ingest.close(keep=True)
    at_end, anew = asyncio.Event(), asyncio.Event()
    source = ScriptedSource(
        CONTENT, Answer(gates={len(CONTENT): at_end}), Answer(gates={MEBI: anew})
    )
    async with two_caches(tmp_path) as (one, other):
        first = Reading(await get(one, source, CONTENT))
        await first.until(2 * MEBI)
        early = Reading(await get(other, NONE, CONTENT))
        waiting = Reading(await get(other, NONE, CONTENT), len(CONTENT) - 1000)
        await early.until(2 * MEBI)
        at_end.set()
        with pytest.raises(Unavailable, match="fetched again"):
            await early.task
        fresh = Reading(await get(other, NONE, CONTENT))
        await fresh.until(MEBI)
        anew.set()
        await asyncio.gather(fresh.task, waiting.task)
        assert fresh.got == CONTENT
        assert waiting.got == CONTENT[-1000:]
        assert source.opened == [(MEBI, None), (0, None)]
        with pytest.raises(Unavailable, match="fetched again"):
            await first.task


async def test_bytes_that_differ_from_what_was_verified_are_not_completed(tmp_path: Path) -> None:
    """The writer verified what it had in memory; the file had another byte when it was read."""
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=SystemClock()) as other:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(CONTENT)[:MEBI])
        (partial,) = (tmp_path / "ingest").iterdir()
        flip(partial, BLOCK_BYTES + 7)
        reading = Reading(await get(other, NONE, CONTENT))
        await reading.until(MEBI)
        flip(partial, BLOCK_BYTES + 7)
        ingest.write(memoryview(CONTENT)[MEBI:])
        ingest.publish()
        with pytest.raises(Integrity):
            await reading.task
        assert len(reading.got) == len(CONTENT) - HOLDBACK
        await ingest.close(keep=False)


async def test_a_partial_that_is_longer_than_its_content_completes_nothing(tmp_path: Path) -> None:
    """Zeros of the right length and one byte more, left behind: what was read of them is void."""
    rest = ScriptedSource(CONTENT)
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=SystemClock()) as other:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(bytes(len(CONTENT) + 1)))
        reading = Reading(await get(other, rest, CONTENT))
        await reading.until(len(CONTENT) - HOLDBACK)
        await ingest.close(keep=True)
        with pytest.raises(Integrity):
            await reading.task
        assert len(reading.got) == len(CONTENT) - HOLDBACK


async def test_who_holds_on_and_brings_nothing_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    rest = ScriptedSource(CONTENT)
    clock = FakeClock()
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=clock) as other:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(CONTENT)[: MEBI + 3])
        reading = Reading(await get(other, rest, CONTENT))
        async with asyncio.timeout(20):
            while not reading.task.done():
                await clock.run_for(SILENT_SECONDS / 10)
                await asyncio.sleep(0.01)
        await reading.task
        assert reading.got == CONTENT
        assert rest.opened == [(MEBI + 3, None)]
        await ingest.close(keep=False)


async def test_who_brings_nothing_is_looked_at_less_and_less_often(tmp_path: Path) -> None:
    clock = FakeClock()

    class Mute:
        have = came = looks = 0
        cut = asyncio.Event()

        async def advance(self) -> None:
            self.looks += 1
            self.have = self.came

    mute = Mute()
    reading = asyncio.create_task(read_along(cast("Tail", mute), clock, lambda: None))
    await clock.run_for(1.0)
    assert mute.looks >= 15, "what comes soon is seen soon"
    await clock.run_for(10.0)
    seen = mute.looks
    await clock.run_for(10.0)
    assert mute.looks - seen <= 10.0 / MAX_FOLLOW_SECONDS + 1
    mute.came = 1
    await clock.run_for(MAX_FOLLOW_SECONDS)
    seen = mute.looks
    await clock.run_for(0.2)
    assert mute.looks - seen >= 5, "and soon again"
    await clock.run_for(10.0)
    seen = mute.looks
    mute.cut.set()
    await settle()
    assert mute.looks == seen + 1, "at once, and once only"
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_readers_of_the_published_object_do_not_keep_followers_waiting(
    tmp_path: Path,
) -> None:
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=SystemClock()) as other:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(CONTENT)[:MEBI])
        reading = Reading(await get(other, NONE, CONTENT))
        await reading.until(MEBI)
        ingest.write(memoryview(CONTENT)[MEBI:])
        ingest.publish()
        reader = await store.open(KEY.digest)
        assert reader is not None
        async with asyncio.timeout(10):
            await reading.task
        assert reading.got == CONTENT
        reader.close()
        await ingest.close(keep=False)


async def test_a_lost_sidecar_makes_the_follower_hash_by_itself(tmp_path: Path) -> None:
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=SystemClock()) as other:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(CONTENT)[:MEBI])
        reading = Reading(await get(other, NONE, CONTENT))
        await reading.until(MEBI)
        (partial,) = (tmp_path / "ingest").iterdir()
        ingest.write(memoryview(CONTENT)[MEBI:])
        partial.unlink()  # what a failed publish leaves
        with pytest.raises(Unavailable):
            ingest.publish()
        await reading.task
        assert reading.got == CONTENT
        await ingest.close(keep=False)


async def test_a_full_disk_in_one_process_lets_the_other_go_on_without_keeping(
    tmp_path: Path,
) -> None:
    rest = ScriptedSource(CONTENT)
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=SystemClock()) as other:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(CONTENT)[: MEBI + 3])
        reading = Reading(await get(other, rest, CONTENT))
        await reading.until(MEBI + 3)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEBI, limit[1]))
        try:
            with pytest.raises(Unavailable):
                ingest.write(memoryview(CONTENT)[MEBI + 3 :])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        await reading.task
        assert reading.got == CONTENT
        assert rest.opened == [(MEBI + 3, None)]
        assert list(other.store.objects()) == []
        await ingest.close(keep=False)


async def test_what_another_published_since_we_looked_is_not_fetched(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path, clock=SystemClock()) as one:
        await read_all(await get(one, source, CONTENT))
        await idle(one)
    async with (
        writer(tmp_path) as store,
        open_cache(tmp_path, clock=SystemClock(), store=LateStore(store)) as other,
    ):
        assert await read_all(await get(other, NONE, CONTENT)) == CONTENT
        assert NONE.opened == []
        assert list((tmp_path / "ingest").iterdir()) == []


async def test_a_wrong_size_in_another_process_spoils_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(total=None, gates={MEBI: gate}))
    async with two_caches(tmp_path) as (one, other):
        lie = Reading(
            await one.cache.get(CONNECTION, REPOSITORY, KEY.digest, len(CONTENT) + 1, source)
        )
        await lie.until(BLOCK_BYTES)
        assert await read_all(await get(other, ScriptedSource(CONTENT), CONTENT)) == CONTENT
        gate.set()
        with pytest.raises(Integrity):
            await lie.task


async def test_followers_that_leave_disturb_nobody(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={MEBI: gate}))
    limits = TransferLimits(grace_seconds=0.05)
    async with two_caches(tmp_path, limits) as (one, other):
        first = Reading(await get(one, source, CONTENT))
        await first.until(MEBI)
        second = Reading(await get(other, NONE, CONTENT))
        await second.until(MEBI)
        second.task.cancel()
        await idle(other)  # it does not go on for the cache: the first one does
        gate.set()
        await first.task
        assert first.got == CONTENT


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        (byte,) = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte ^ 1]), offset)
