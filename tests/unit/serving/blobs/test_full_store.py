"""The store cannot take it: caching stops, not serving. Still verified and held back."""

import asyncio
from pathlib import Path

import pytest

from facade.errors import Integrity, Unavailable
from facade.serving.blobs.limits import TransferLimits
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blob_store import MemoryStore
from tests.support.blobs import (
    MEBI,
    get,
    idle,
    key_of,
    make_content,
    open_cache,
    read_all,
)
from tests.support.clock import FakeClock

CONTENT = make_content(6 * MEBI + 99)
HOLDBACK = 64 * 1024
CAPACITIES = [0, 100, MEBI, 3 * MEBI + 7, len(CONTENT) - 1]


@pytest.mark.parametrize("capacity", CAPACITIES)
async def test_everybody_gets_everything_from_one_request(tmp_path: Path, capacity: int) -> None:
    store = MemoryStore(capacity=capacity)
    async with open_cache(tmp_path, store=store) as bench:
        source = ScriptedSource(CONTENT)
        streams = [await get(bench, source, CONTENT) for _ in range(5)]
        assert await asyncio.gather(*map(read_all, streams)) == [CONTENT] * 5
        await idle(bench)
        assert len(source.opened) == 1
        assert store.used() == 0
        again = await get(bench, source, CONTENT)
        assert again.outcome == "miss"
        await again.aclose()


@pytest.mark.parametrize("capacity", CAPACITIES)
async def test_ranges_of_all_kinds_at_once(tmp_path: Path, capacity: int) -> None:
    bounds = [(0, 10), (5, MEBI), (MEBI, 3 * MEBI), (len(CONTENT) - 5, len(CONTENT)), (7, 7)]
    async with open_cache(tmp_path, store=MemoryStore(capacity=capacity)) as bench:
        source = ScriptedSource(CONTENT)
        streams = [await get(bench, source, CONTENT) for _ in bounds]
        got = await asyncio.gather(
            *(read_all(stream, *each) for stream, each in zip(streams, bounds, strict=True))
        )
        assert got == [CONTENT[start:stop] for start, stop in bounds]


@pytest.mark.parametrize("capacity", [0, 3 * MEBI])
async def test_wrong_bytes_are_still_held_back(tmp_path: Path, capacity: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[-1] ^= 1
    async with open_cache(tmp_path, store=MemoryStore(capacity=capacity)) as bench:
        stream = await get(bench, ScriptedSource(CONTENT, Answer(content=bytes(wrong))), CONTENT)
        count = 0
        reading = aiter(stream.chunks())
        while count < len(CONTENT) - HOLDBACK:
            count += len(await anext(reading))
        assert count == len(CONTENT) - HOLDBACK
        with pytest.raises(Integrity):
            await anext(reading)
        await stream.aclose()


async def test_a_break_is_resumed_without_a_store_too(tmp_path: Path) -> None:
    async with open_cache(tmp_path, store=MemoryStore(capacity=0)) as bench:
        source = ScriptedSource(CONTENT, Answer(cut_at=2 * MEBI + 1))
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert [offset for offset, _ in source.opened] == [0, 2 * MEBI + 1]


async def test_memory_stays_bounded_while_a_reader_sleeps(tmp_path: Path) -> None:
    async with open_cache(tmp_path, store=MemoryStore(capacity=0)) as bench:
        source = ScriptedSource(CONTENT)
        stream = await get(bench, source, CONTENT)
        reading = aiter(stream.chunks())
        got = bytes(await anext(reading))
        await asyncio.sleep(0.05)
        (transfer,) = bench.cache.flights._running.values()
        assert transfer.received <= len(got) + 2 * MEBI
        async for view in reading:
            got += view
        await stream.aclose()
        assert got == CONTENT


async def test_a_reader_that_lags_is_cut_and_the_others_go_on(tmp_path: Path) -> None:
    limits = TransferLimits(lag_seconds=0.05)
    async with open_cache(tmp_path, store=MemoryStore(capacity=0), limits=limits) as bench:
        source = ScriptedSource(CONTENT)
        slow, quick = await get(bench, source, CONTENT), await get(bench, source, CONTENT)
        reading = aiter(slow.chunks())
        await anext(reading)
        assert await read_all(quick) == CONTENT
        with pytest.raises(Unavailable, match="too slow"):
            await anext(reading)
        await slow.aclose()


async def test_who_comes_when_the_beginning_is_gone_has_a_transfer_of_its_own(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()
    async with open_cache(tmp_path, store=MemoryStore(capacity=0)) as bench:
        source = ScriptedSource(CONTENT, Answer(gates={5 * MEBI: gate}))
        first = asyncio.create_task(read_all(await get(bench, source, CONTENT)))
        await asyncio.sleep(0.1)
        second = await get(bench, source, CONTENT)
        assert second.outcome == "miss"
        assert await read_all(second) == CONTENT
        gate.set()
        assert await first == CONTENT
        assert len(source.opened) == 2


async def test_strict_needs_room_for_the_whole_or_refuses(tmp_path: Path) -> None:
    limits = TransferLimits(strict=True)
    async with open_cache(tmp_path, store=MemoryStore(capacity=0), limits=limits) as bench:
        with pytest.raises(Unavailable, match="verified before"):
            await read_all(await get(bench, ScriptedSource(CONTENT), CONTENT))
        small = make_content(100_000)
        assert await read_all(await get(bench, ScriptedSource(small), small)) == small


async def test_without_readers_nothing_is_fetched_for_nobody(tmp_path: Path) -> None:
    clock = FakeClock()
    store = MemoryStore(capacity=0)
    async with open_cache(tmp_path, store=store, clock=clock) as bench:
        source = ScriptedSource(CONTENT, Answer(gates={4 * MEBI: asyncio.Event()}))
        stream = await get(bench, source, CONTENT)
        await anext(aiter(stream.chunks()))
        (transfer,) = bench.cache.flights._running.values()
        async with asyncio.timeout(10):
            while transfer.lockstep is None:  # noqa: ASYNC110 - real time, for real threads
                await asyncio.sleep(0.001)
        await stream.aclose()
        await clock.run_for(11)
        await idle(bench)
        assert source.running == 0


async def test_full_only_when_publishing(tmp_path: Path) -> None:
    store = MemoryStore(can_publish=False)
    async with open_cache(tmp_path, store=store) as bench:
        source = ScriptedSource(CONTENT)
        streams = [await get(bench, source, CONTENT) for _ in range(2)]
        assert await asyncio.gather(*map(read_all, streams)) == [CONTENT] * 2
        await idle(bench)
        async with asyncio.timeout(5):
            while store.used():  # noqa: ASYNC110 - real time, for real threads
                await asyncio.sleep(0.001)
        assert not await bench.index.has(key_of(CONTENT))
        assert await store.open(key_of(CONTENT).digest) is None


async def test_a_mismatch_after_a_break_is_fetched_from_zero_without_a_store_too(
    tmp_path: Path,
) -> None:
    content = make_content(200_000)
    wrong = bytearray(content)
    wrong[150_000] ^= 1
    answers = [Answer(cut_at=100_000), Answer(content=bytes(wrong))]
    async with open_cache(
        tmp_path, store=MemoryStore(capacity=0), limits=TransferLimits(strict=True)
    ) as bench:
        source = ScriptedSource(content, *answers)
        streams = [await get(bench, source, content) for _ in range(3)]
        assert await asyncio.gather(*map(read_all, streams)) == [content] * 3
        assert [offset for offset, _ in source.opened] == [0, 100_000, 0]


async def test_what_is_larger_than_the_cache_may_be_is_served_and_not_kept(tmp_path: Path) -> None:
    async with open_cache(tmp_path, max_bytes=len(CONTENT) - 1) as bench:
        source = ScriptedSource(CONTENT)
        streams = [await get(bench, source, CONTENT) for _ in range(3)]
        assert await asyncio.gather(*map(read_all, streams)) == [CONTENT] * 3
        await idle(bench)
        assert len(source.opened) == 1
        assert await bench.store.open(key_of(CONTENT).digest) is None
        assert not await bench.index.has(key_of(CONTENT))
        assert list((tmp_path / "ingest").iterdir()) == []


async def test_what_is_larger_than_the_cache_may_be_is_verified(tmp_path: Path) -> None:
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    async with open_cache(tmp_path, max_bytes=len(CONTENT) - 1) as bench:
        stream = await get(bench, ScriptedSource(CONTENT, Answer(content=wrong)), CONTENT)
        with pytest.raises(Integrity):
            await read_all(stream)


async def test_transfers_at_once_do_not_pass_the_bound_together(tmp_path: Path) -> None:
    gate = asyncio.Event()
    first, second = make_content(MEBI, seed=1), make_content(MEBI, seed=2)
    async with open_cache(tmp_path, max_bytes=2 * MEBI - 1) as bench:
        source = ScriptedSource(first, Answer(gates={MEBI // 2: gate}))
        slow = asyncio.create_task(read_all(await get(bench, source, first)))
        await asyncio.sleep(0.05)
        assert await read_all(await get(bench, ScriptedSource(second), second)) == second
        gate.set()
        assert await slow == first
        await idle(bench)
        assert not await bench.index.has(key_of(second))
        assert await bench.index.has(key_of(first))
        assert await read_all(await get(bench, ScriptedSource(second), second)) == second
        await idle(bench)
        assert await bench.index.has(key_of(second))
