"""Chunks of any size become few pieces of work, in order; what was worked on last stays readable."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from facade.errors import Unavailable
from facade.serving.blobs.batch import BATCH_BYTES, Buffers
from facade.serving.blobs.gather import Gatherer
from facade.serving.blobs.port import BLOCK_BYTES
from tests.support.blobs import make_content, make_executor


class Collecting:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.worked = bytearray()
        self.landed_sizes: list[int] = []
        self.room = asyncio.Event()
        self.room.set()
        self.fail: Exception | None = None
        self.trouble: Unavailable | None = None
        self.troubles: list[Unavailable | None] = []
        self.may_work = threading.Event()
        self.may_work.set()
        self.came_count = 0

    def came(self) -> None:
        self.came_count += 1

    def work(self, data: memoryview) -> Unavailable | None:
        self.may_work.wait(10)
        if self.fail is not None:
            raise self.fail
        self.worked += data
        return self.trouble

    def landed(self, data: memoryview, trouble: Unavailable | None) -> None:
        self.landed_sizes.append(len(data))
        self.troubles.append(trouble)

    def has_room(self, count: int) -> bool:
        return self.room.is_set()

    async def wait_room(self, count: int) -> None:
        await self.room.wait()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with make_executor() as executor:
        yield executor


@pytest.mark.parametrize("chunk", [1000, 65_536, BATCH_BYTES, 3 * BATCH_BYTES + 1])
async def test_everything_is_worked_on_in_order(executor: ThreadPoolExecutor, chunk: int) -> None:
    content = make_content(5 * BATCH_BYTES + 123)
    sink = Collecting()
    gatherer = Gatherer(sink, executor)
    for at in range(0, len(content), chunk):
        await gatherer.add(content[at : at + chunk])
    assert gatherer.end == len(content)
    await gatherer.drain()
    assert bytes(sink.worked) == content
    assert sum(sink.landed_sizes) == len(content)
    assert max(sink.landed_sizes) <= BATCH_BYTES


async def test_a_trickle_does_not_wait_for_a_full_buffer(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    gatherer = Gatherer(sink, executor)
    for number in (1, 2):
        await gatherer.add(b"x" * 10)
        async with asyncio.timeout(2):
            while sum(sink.landed_sizes) < 10 * number:  # noqa: ASYNC110 - a real timer
                await asyncio.sleep(0.001)


async def test_after_an_odd_start_pieces_end_on_blocks(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    gatherer = Gatherer(sink, executor)
    gatherer.begin(1000)
    await gatherer.add(bytes(3 * BATCH_BYTES))
    await gatherer.drain()
    ends = [1000 + sum(sink.landed_sizes[: n + 1]) for n in range(len(sink.landed_sizes) - 1)]
    assert ends
    assert all(end % BLOCK_BYTES == 0 for end in ends)


async def test_without_room_it_waits(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    sink.room.clear()
    gatherer = Gatherer(sink, executor)
    task = asyncio.create_task(gatherer.add(bytes(BATCH_BYTES)))
    await asyncio.sleep(0.01)
    assert not task.done()
    assert not sink.worked
    sink.room.set()
    await task
    await gatherer.drain()
    assert len(sink.worked) == BATCH_BYTES


async def test_a_trickle_without_room_goes_when_there_is(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    sink.room.clear()
    gatherer = Gatherer(sink, executor)
    await gatherer.add(b"x")
    await asyncio.sleep(0.01)
    assert not sink.landed_sizes
    sink.room.set()
    async with asyncio.timeout(2):
        while not sink.landed_sizes:  # noqa: ASYNC110 - a real timer
            await asyncio.sleep(0.001)


async def test_what_work_returns_is_handed_on(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    sink.trouble = Unavailable("full")
    gatherer = Gatherer(sink, executor)
    await gatherer.add(b"x")
    await gatherer.drain()
    assert sink.troubles == [sink.trouble]


async def test_what_work_raises_is_raised_once_more(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    sink.fail = ZeroDivisionError()
    gatherer = Gatherer(sink, executor)
    await gatherer.add(bytes(BATCH_BYTES))
    with pytest.raises(ZeroDivisionError):
        await gatherer.drain()
    assert not sink.landed_sizes


async def test_discarded_bytes_are_never_worked_on(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    gatherer = Gatherer(sink, executor)
    await gatherer.add(b"x")
    gatherer.discard()
    await gatherer.settle()
    gatherer.begin(0)
    await gatherer.add(b"y")
    await gatherer.drain()
    assert sink.worked == b"y"


@pytest.mark.parametrize("keep", [True, False])
async def test_closing_works_on_what_came_if_it_is_to_be_kept(
    executor: ThreadPoolExecutor, keep: bool
) -> None:
    sink = Collecting()
    gatherer = Gatherer(sink, executor)
    await gatherer.add(b"x")
    await gatherer.close(keep=keep)
    assert bytes(sink.worked) == (b"x" if keep else b"")


async def test_settling_is_not_cut_short_by_cancellation(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    gatherer = Gatherer(sink, executor)
    sink.may_work.clear()
    await gatherer.add(bytes(BATCH_BYTES))
    task = asyncio.create_task(gatherer.settle())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    sink.may_work.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.landed_sizes == [BATCH_BYTES]


async def test_what_was_worked_on_last_is_readable(executor: ThreadPoolExecutor) -> None:
    content = make_content(2 * BATCH_BYTES + 10)
    gatherer = Gatherer(Collecting(), executor)
    await gatherer.add(content)
    await gatherer.drain()
    for offset in (BATCH_BYTES, 2 * BATCH_BYTES - 1, len(content) - 1):
        batch = gatherer.recent(offset)
        assert batch is not None
        assert batch.view(offset, batch.end) == content[offset : batch.end]
    assert gatherer.recent(len(content)) is None


async def test_what_came_is_readable_at_once(executor: ThreadPoolExecutor) -> None:
    content = make_content(BATCH_BYTES + 1)
    sink = Collecting()
    sink.may_work.clear()
    gatherer = Gatherer(sink, executor)
    await gatherer.add(content)
    assert sink.came_count
    assert not sink.worked
    for offset in (0, BATCH_BYTES - 1, BATCH_BYTES):
        batch = gatherer.recent(offset)
        assert batch is not None
        assert batch.view(offset, batch.end) == content[offset : batch.end]
    assert gatherer.recent(len(content)) is None
    sink.may_work.set()
    await gatherer.drain()


async def test_what_is_read_stays_when_it_is_discarded(executor: ThreadPoolExecutor) -> None:
    gatherer = Gatherer(Collecting(), executor)
    await gatherer.add(b"first")
    batch = gatherer.recent(0)
    assert batch is not None
    batch.readers += 1
    view = batch.view(0, 5)
    gatherer.discard()
    gatherer.begin(0)
    await gatherer.add(b"other")
    assert bytes(view) == b"first"
    await gatherer.drain()


async def test_space_is_filled_in_place(executor: ThreadPoolExecutor) -> None:
    content = make_content(3 * BATCH_BYTES + 5)
    sink = Collecting()
    gatherer = Gatherer(sink, executor)
    while gatherer.end < len(content):
        await gatherer.make_space()
        space = gatherer.space()[: len(content) - gatherer.end]
        space[:] = content[gatherer.end : gatherer.end + len(space)]
        gatherer.filled(len(space))
    await gatherer.drain()
    assert sink.worked == content


async def test_there_is_no_space_while_both_batches_are_full(executor: ThreadPoolExecutor) -> None:
    sink = Collecting()
    sink.may_work.clear()
    gatherer = Gatherer(sink, executor)
    for _ in range(2):
        gatherer.filled(len(gatherer.space()))
    assert not gatherer.space()
    waiting = asyncio.create_task(gatherer.make_space())
    await asyncio.sleep(0)
    assert not waiting.done()
    sink.may_work.set()
    await waiting
    assert gatherer.space()
    await gatherer.drain()


async def test_a_batch_that_is_read_is_not_filled_again(executor: ThreadPoolExecutor) -> None:
    content = make_content(9 * BATCH_BYTES)
    gatherer = Gatherer(Collecting(), executor)
    await gatherer.add(content[:BATCH_BYTES])
    await gatherer.drain()
    batch = gatherer.recent(0)
    assert batch is not None
    batch.readers += 1
    view = batch.view(0, BATCH_BYTES)
    await gatherer.add(content[BATCH_BYTES:])
    await gatherer.drain()
    assert view == content[:BATCH_BYTES]
    assert gatherer.recent(0) is None


async def test_a_new_beginning_leaves_nothing_to_read(executor: ThreadPoolExecutor) -> None:
    gatherer = Gatherer(Collecting(), executor)
    await gatherer.add(b"x")
    await gatherer.drain()
    gatherer.discard()
    gatherer.begin(0)
    assert gatherer.recent(0) is None


@pytest.mark.parametrize(
    ("size", "begin"),
    [
        (size, begin)
        for size in (1, 1000, BLOCK_BYTES, BLOCK_BYTES + 1, BATCH_BYTES + 1)
        for begin in (0, 1, 999)
        if begin < size
    ],
)
async def test_a_small_blob_is_gathered_whole(
    executor: ThreadPoolExecutor, size: int, begin: int
) -> None:
    content = make_content(size)
    sink = Collecting()
    gatherer = Gatherer(sink, executor, size)
    gatherer.begin(begin)
    await gatherer.add(content[begin:])
    await gatherer.drain()
    assert sink.worked == content[begin:]
    assert gatherer.end == size


async def test_buffers_are_used_again_unless_somebody_reads_them(
    executor: ThreadPoolExecutor,
) -> None:
    buffers = Buffers(8)
    content = make_content(BATCH_BYTES)
    first = Gatherer(Collecting(), executor, BATCH_BYTES, buffers)
    await first.add(content)
    await first.close(keep=True)
    batch = first.recent(0)
    assert batch is not None
    batch.readers += 1
    view = batch.view(0, BATCH_BYTES)
    first.release()
    assert first.recent(0) is None
    used = {id(buffers.take().obj) for _ in range(8)}
    assert id(view.obj) not in used
    batch.readers -= 1
    second = Gatherer(Collecting(), executor, BATCH_BYTES, buffers)
    await second.add(content)
    await second.close(keep=True)
    batch = second.recent(0)
    assert batch is not None
    second.release()
    assert id(batch.buffer.obj) in {id(buffers.take().obj) for _ in range(8)}


async def test_no_more_buffers_are_kept_than_allowed() -> None:
    buffers = Buffers(1)
    taken = [buffers.take() for _ in range(3)]
    for buffer in taken:
        buffers.give(buffer)
    known = {id(buffer.obj) for buffer in taken}
    assert [id(buffers.take().obj) in known for _ in range(2)] == [True, False]


class Taken(Buffers):
    """Counts what is taken."""

    count = 0

    def take(self) -> memoryview:
        self.count += 1
        return super().take()


async def test_memory_is_taken_for_bytes_that_come_and_for_no_others(
    executor: ThreadPoolExecutor,
) -> None:
    buffers = Taken()
    gatherer = Gatherer(Collecting(), executor, 2 * BATCH_BYTES, buffers)
    assert buffers.count == 0
    for count in (1, 2):
        await gatherer.add(bytes(BATCH_BYTES))
        await gatherer.drain()
        assert buffers.count == count
    await gatherer.close(keep=False)
    gatherer.release()
