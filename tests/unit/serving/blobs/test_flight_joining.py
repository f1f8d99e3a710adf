"""Who reads along, who leaves, who comes late: one transfer for all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from facade.errors import Integrity, Unavailable, Upstream
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.port import BlobKey, BlobStream, Feed
from tests.support.blob_source import Answer, Body, ScriptedSource, broken
from tests.support.blob_store import MemoryIngest, MemoryStore
from tests.support.blobs import (
    CONNECTION,
    MEBI,
    REPOSITORY,
    Bench,
    Reading,
    idle,
    key_of,
    make_content,
    open_cache,
    read_all,
)
from tests.support.clock import FakeClock

CONTENT = make_content(3 * MEBI + 17)
DIGEST = key_of(CONTENT).digest


async def get(bench: Bench, source: ScriptedSource, content: bytes = CONTENT) -> BlobStream:
    return await bench.cache.get(
        CONNECTION, REPOSITORY, key_of(content).digest, len(content), source
    )


async def test_sixteen_readers_one_request_upstream(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT)
        streams = [await get(bench, source) for _ in range(16)]
        assert [stream.outcome for stream in streams] == ["miss"] + ["join"] * 15
        got = await asyncio.gather(*map(read_all, streams))
        assert got == [CONTENT] * 16
        await idle(bench)
        late = await get(bench, source)
        assert late.outcome == "hit"
        assert await read_all(late) == CONTENT
        assert source.opened == [(0, None)]
        assert bench.observer.count("missed") == 1
        assert bench.observer.count("joined") == 15
        assert bench.observer.count("hit") == 1
        fetched = [entry[2] for entry in bench.observer.seen if entry[0] == "fetched"]
        assert sum(count for count in fetched if isinstance(count, int)) == len(CONTENT)


async def test_who_comes_in_the_middle_reads_from_the_start(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={2 * MEBI: gate}))
    async with open_cache(tmp_path) as bench:
        first = await get(bench, source)
        reading = aiter(first.chunks())
        seen = 0
        while seen < 2 * MEBI:
            seen += len(await anext(reading))
        second = await get(bench, source)
        assert second.outcome == "join"
        task = asyncio.create_task(read_all(second))
        await asyncio.sleep(0.01)
        gate.set()
        assert await task == CONTENT
        await first.aclose()
        assert len(source.opened) == 1


async def test_the_one_who_started_it_is_cancelled(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={MEBI: gate}))
    async with open_cache(tmp_path) as bench:
        leader = asyncio.create_task(read_all(await get(bench, source)))
        follower = asyncio.create_task(read_all(await get(bench, source)))
        await asyncio.sleep(0.02)
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        gate.set()
        assert await follower == CONTENT
        assert len(source.opened) == 1


@pytest.mark.parametrize("gate_at", [0, 1, MEBI, len(CONTENT) - 10, len(CONTENT)])
async def test_a_reader_is_cancelled_in_each_phase_and_nobody_else_notices(
    tmp_path: Path, gate_at: int
) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={gate_at: gate}))
    async with open_cache(tmp_path) as bench:
        tasks = [asyncio.create_task(read_all(await get(bench, source))) for _ in range(3)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        tasks[2].cancel()
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] == CONTENT
        assert isinstance(results[2], asyncio.CancelledError)
        assert len(source.opened) == 1
        await idle(bench)
        assert (await get(bench, source)).outcome == "hit"


async def test_a_reader_leaves_between_views_and_its_view_stays_right(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT)
        stream, other = await get(bench, source), await get(bench, source)
        reading = aiter(stream.chunks())
        view = await anext(reading)
        await stream.aclose()
        assert await read_all(other) == CONTENT
        assert bytes(view) == CONTENT[: len(view)]


async def test_a_slow_reader_gets_everything_long_after_the_others(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT)
        slow = await get(bench, source)
        reading = aiter(slow.chunks())
        got = bytes(await anext(reading))
        assert await read_all(await get(bench, source)) == CONTENT
        await idle(bench)
        assert (await get(bench, source)).outcome == "hit"
        async for view in reading:
            got += view
        await slow.aclose()
        assert got == CONTENT


async def test_without_readers_it_carries_on_for_the_cache(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={MEBI: gate}))
    clock = FakeClock()
    async with open_cache(tmp_path, clock=clock) as bench:
        stream = await get(bench, source)
        await anext(aiter(stream.chunks()))
        await stream.aclose()
        await clock.run_for(3600)
        gate.set()
        await idle(bench)
        assert (await get(bench, source)).outcome == "hit"


async def test_without_readers_it_stops_after_a_grace_period_and_keeps_its_partial(
    tmp_path: Path,
) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={MEBI: gate}))
    clock = FakeClock()
    limits = TransferLimits(carry_on=False, grace_seconds=10)
    async with open_cache(tmp_path, clock=clock, limits=limits) as bench:
        stream = await get(bench, source)
        reading = aiter(stream.chunks())
        seen = 0
        while seen < MEBI:
            seen += len(await anext(reading))
        await stream.aclose()
        await clock.run_for(9)
        assert len(bench.cache.flights) == 1
        back = await get(bench, source)
        assert back.outcome == "join"
        await clock.run_for(20)
        assert len(bench.cache.flights) == 1
        await back.aclose()
        await clock.run_for(11)
        await idle(bench)
        assert source.running == 0
        again = await get(bench, source)
        assert await read_all(again) == CONTENT
        assert source.opened == [(0, None), (MEBI, None)]


async def test_closing_keeps_what_came_for_the_next_process(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT, Answer(gates={MEBI: asyncio.Event()}))
    async with open_cache(tmp_path) as bench:
        stream = await get(bench, source)
        reading = aiter(stream.chunks())
        seen = 0
        while seen < MEBI:
            seen += len(await anext(reading))
        await bench.cache.close()
        with pytest.raises(Unavailable):
            await anext(reading)
        await stream.aclose()
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source)) == CONTENT
        assert source.opened == [(0, None), (MEBI, None)]


async def test_closing_before_the_first_step_leaves_nobody_waiting(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        stream = await get(bench, ScriptedSource(CONTENT))
        closing = asyncio.create_task(bench.cache.flights.close())
        with pytest.raises(Unavailable):
            await read_all(stream)
        await closing


async def test_what_the_registry_refuses_is_told_to_all_and_not_remembered(
    tmp_path: Path,
) -> None:
    source = ScriptedSource(CONTENT, Answer(refuse=broken()))
    async with open_cache(tmp_path) as bench:
        streams = await asyncio.gather(*(get(bench, source) for _ in range(3)))
        results = await asyncio.gather(*map(read_all, streams), return_exceptions=True)
        assert [type(result) for result in results] == [Upstream] * 3
        assert len(source.opened) == 1
        assert await read_all(await get(bench, source)) == CONTENT


async def test_a_wrong_size_in_a_descriptor_spoils_only_requests_with_that_size(
    tmp_path: Path,
) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        lie = await bench.cache.get(CONNECTION, REPOSITORY, DIGEST, len(CONTENT) + 1, source)
        truth = await get(bench, source)
        results = await asyncio.gather(read_all(lie), read_all(truth), return_exceptions=True)
        assert isinstance(results[0], Integrity)
        assert results[1] == CONTENT


class Crashing(ScriptedSource):
    """A source with a programming error."""

    @asynccontextmanager
    async def open(self, offset: int, etag: str | None) -> AsyncIterator[Body]:
        async with super().open(offset, etag) as body:
            yield body
            raise ZeroDivisionError


async def test_a_programming_error_reaches_the_readers_as_unavailable(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        with pytest.raises(Unavailable, match="failed"):
            await read_all(await get(bench, Crashing(CONTENT)))
        await idle(bench)


async def test_warming_brings_it_in_without_reading(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        for _ in range(2):
            assert await bench.cache.fetch(CONNECTION, REPOSITORY, DIGEST, len(CONTENT), source)
        assert len(source.opened) == 1
        wrong = ScriptedSource(CONTENT, Answer(content=b"x" * 10))
        other = key_of(b"0123456789").digest
        with pytest.raises(Integrity):
            await bench.cache.fetch(CONNECTION, REPOSITORY, other, 10, wrong)


class SlowToClose(MemoryStore):
    """Closing an ingest takes until it may end."""

    def __init__(self) -> None:
        super().__init__()
        self.closes, self.may_end = asyncio.Event(), asyncio.Event()

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> MemoryIngest:
        ingest = await super().ingest(key, size, feed)
        close = ingest.close

        async def slowly(*, keep: bool, refusal: Upstream | None = None) -> None:
            self.closes.set()
            await self.may_end.wait()
            await close(keep=keep, refusal=refusal)

        ingest.close = slowly  # type: ignore[method-assign]  # this one's alone
        return ingest


async def test_a_stop_does_not_interrupt_the_clean_up_of_one_that_failed(tmp_path: Path) -> None:
    store = SlowToClose()
    async with open_cache(tmp_path, store=store) as bench:
        wrong = Answer(content=CONTENT[:-1] + b"\0")
        reading = Reading(await get(bench, ScriptedSource(CONTENT, wrong)))
        await store.closes.wait()
        closing = asyncio.create_task(bench.cache.close())
        await asyncio.sleep(0)
        store.may_end.set()
        await closing
        with pytest.raises(Integrity):
            await reading.task
        assert not store.locked


async def test_all_who_look_for_it_at_once_are_one_transfer(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT)
        streams = await asyncio.gather(*(get(bench, source) for _ in range(16)))
        assert sorted(stream.outcome for stream in streams) == ["join"] * 15 + ["miss"]
        assert await asyncio.gather(*map(read_all, streams)) == [CONTENT] * 16
        assert source.opened == [(0, None)]


@pytest.mark.parametrize("steps", range(8))
async def test_who_leaves_while_looking_for_it_leaves_it_to_the_next(
    tmp_path: Path, steps: int
) -> None:
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT)
        tasks = [asyncio.create_task(get(bench, source)) for _ in range(2)]
        for _ in range(steps):
            await asyncio.sleep(0)
        tasks[0].cancel()
        async with asyncio.timeout(10):
            assert await read_all(await tasks[1]) == CONTENT
        await idle(bench)
        assert not list((tmp_path / "ingest").iterdir())


async def test_what_was_begun_beside_a_transfer_is_given_up(tmp_path: Path) -> None:
    key, size = key_of(CONTENT), len(CONTENT)
    async with open_cache(tmp_path, store=(store := MemoryStore())) as bench:
        gate = asyncio.Event()
        source = ScriptedSource(CONTENT, Answer(gates={0: gate}))
        first = await bench.cache.flights.stream(key, size, source)
        begun = MemoryIngest(store, key, bytearray(), superseded=False)
        second = await bench.cache.flights.stream(key, size, source, begun=begun)
        assert second.outcome == "join"
        assert key not in store.locked, "it was closed"
        gate.set()
        assert await read_all(first) == await read_all(second) == CONTENT


async def test_a_transfer_that_is_stopped_before_its_first_step_lets_go_of_what_was_begun(
    tmp_path: Path,
) -> None:
    key, size = key_of(CONTENT), len(CONTENT)
    async with open_cache(tmp_path) as bench:
        begun = (await bench.store.find(key, size)).begun
        assert begun is not None
        stream = await bench.cache.flights.stream(key, size, ScriptedSource(CONTENT), begun=begun)
        await bench.cache.flights.close()
        with pytest.raises(Unavailable, match="stopped"):
            await read_all(stream)
        again = await bench.store.ingest(key, size, lambda _: None)
        await again.close(keep=False)
