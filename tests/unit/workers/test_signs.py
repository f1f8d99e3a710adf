"""Signs of life through real pipes, from ourselves and from a process."""

import asyncio
import contextlib
import math
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from facade.workers.process import WorkerProcess
from facade.workers.signs import INTERVAL_SECONDS, Signs, give_signs
from facade.workers.sockets import bind_for_workers
from tests.support.clock import FakeClock

SCRIPT = "import os, struct, sys; os.write(int(sys.argv[1]), struct.pack('<d', 2.5))"


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def signs() -> Iterator[Signs]:
    made = Signs()
    yield made
    made.close()
    with contextlib.suppress(OSError):
        made.handed_over()


async def test_a_worker_says_when_it_heard_the_control_side_once_a_second(signs: Signs) -> None:
    clock, silent = FakeClock(), iter((0.25, 1.25, math.inf))
    task = asyncio.create_task(give_signs(signs.given, lambda: next(silent), clock))
    await clock.wait_for_sleepers()
    assert signs.last() == 0.25
    assert signs.last() is None
    await clock.run_for(INTERVAL_SECONDS)
    assert signs.last() == 1.25
    await clock.run_for(INTERVAL_SECONDS)
    assert signs.last() == math.inf
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_parent_that_does_not_read_holds_up_nobody(signs: Signs) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(signs.given, struct.pack("<d", 4.0))
    clock = FakeClock()
    task = asyncio.create_task(give_signs(signs.given, lambda: 1.0, clock))
    await clock.wait_for_sleepers()
    assert signs.last() == 4.0
    await clock.run_for(INTERVAL_SECONDS)
    assert signs.last() == 1.0
    signs.close()  # the parent is gone: `lifeline` ends a worker then, nothing else does
    await clock.run_for(INTERVAL_SECONDS)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_is_no_sign_is_none_and_the_last_whole_one_counts(signs: Signs) -> None:
    os.write(signs.given, b"1234567")
    assert signs.last() is None
    os.write(signs.given, struct.pack("<dd", 7.0, 8.0) + b"rest")
    assert signs.last() == 8.0


def test_a_flood_is_read_in_bounded_pieces(signs: Signs) -> None:
    os.set_blocking(signs.given, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(signs.given, struct.pack("<d", 1.0) * 512)
    assert signs.last() == 1.0
    assert signs.last() is None


async def test_a_process_gives_signs_by_the_descriptor_that_it_is_told() -> None:
    [sock] = bind_for_workers("127.0.0.1", 0, 1)
    before = descriptors()
    process = await WorkerProcess.launch((sys.executable, "-c", SCRIPT), sock, os.environ)
    async with asyncio.timeout(60):
        while (sign := process.sign()) is None:  # noqa: ASYNC110 - a process is no event of ours
            await asyncio.sleep(0.01)
        assert sign == 2.5
        assert await process.ended() == "status 0"
        assert process.sign() is None
        while descriptors() > before:  # noqa: ASYNC110 - asyncio closes its own a moment later
            await asyncio.sleep(0.01)
    sock.close()
