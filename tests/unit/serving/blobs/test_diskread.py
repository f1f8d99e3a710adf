"""Reads without a thread when warm, in one when not, and descriptors closed at the right moment."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facade.serving.blobs.diskread import FileReader, ReadMode, read_fully
from facade.serving.blobs.threads import run_to_end
from tests.support.blobs import make_content, make_executor

CONTENT = make_content(300_000)


def open_file(path: Path, content: bytes = CONTENT) -> int:
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("nowait", [False, True])
async def test_it_fills_the_view_and_less_at_the_end(tmp_path: Path, nowait: bool) -> None:
    with make_executor() as executor:
        mode = ReadMode(executor, nowait=nowait)
        file = FileReader(open_file(tmp_path / "file"), mode)
        view = memoryview(bytearray(200_000))
        assert await file.fill(view, 0) == 200_000
        assert bytes(view) == CONTENT[:200_000]
        assert await file.fill(view, 200_000) == 100_000
        assert bytes(view[:100_000]) == CONTENT[200_000:]
        assert await file.fill(view, 300_000) == 0
        assert (mode.threaded > 0) or nowait
        file.close()


async def test_what_is_not_in_memory_is_read_in_a_thread(tmp_path: Path) -> None:
    fd = open_file(tmp_path / "file")
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    with make_executor() as executor:
        mode = ReadMode(executor)
        file = FileReader(fd, mode)
        view = memoryview(bytearray(len(CONTENT)))
        assert await file.fill(view, 0) == len(CONTENT)
        assert bytes(view) == CONTENT
        file.close()


async def test_a_descriptor_that_cannot_wait_falls_back_for_good(tmp_path: Path) -> None:
    with make_executor() as executor:
        mode = ReadMode(executor)
        file = FileReader(os.open("/proc/self/status", os.O_RDONLY), mode)
        view = memoryview(bytearray(100))
        assert await file.fill(view, 0) == 100
        file.close()


async def test_an_unreadable_descriptor_raises(tmp_path: Path) -> None:
    with make_executor() as executor:
        file = FileReader(os.open(tmp_path, os.O_RDONLY), ReadMode(executor))
        with pytest.raises(OSError, match="directory"):
            await file.fill(memoryview(bytearray(10)), 0)
        file.close()


async def test_it_closes_only_when_no_thread_reads_any_more(tmp_path: Path) -> None:
    fd = open_file(tmp_path / "file")
    view = memoryview(bytearray(len(CONTENT)))
    gate = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        file = FileReader(fd, ReadMode(executor, nowait=False))
        executor.submit(gate.wait)  # the only thread is busy: the read is under way, not done
        task = asyncio.create_task(file.fill(view, 0))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        file.close()
        assert is_open(fd)
        gate.set()
        async with asyncio.timeout(5):
            while is_open(fd):  # noqa: ASYNC110 - a real thread
                await asyncio.sleep(0.001)
    assert bytes(view) == CONTENT


async def test_a_job_runs_to_its_end_when_its_waiter_is_cancelled() -> None:
    reading, writing = os.pipe()
    undone: list[bytes] = []
    with make_executor() as executor:
        task = asyncio.create_task(run_to_end(executor, lambda: os.read(reading, 1), undone.append))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        os.write(writing, b"x")
        with pytest.raises(asyncio.CancelledError):
            await task
    assert undone == [b"x"]
    os.close(reading)
    os.close(writing)


def test_reading_fully_stops_at_the_end(tmp_path: Path) -> None:
    fd = open_file(tmp_path / "file")
    view = memoryview(bytearray(400_000))
    assert read_fully(fd, view, 0) == 300_000
    os.close(fd)
