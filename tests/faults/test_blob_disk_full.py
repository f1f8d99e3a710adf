"""A disk that is really full: caching stops, not serving."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.port import BLOCK_BYTES
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blobs import (
    MEBI,
    Bench,
    get,
    idle,
    make_content,
    make_executor,
    open_cache,
    read_all,
)

DISK_BYTES = 2 * MEBI
BIG = make_content(5 * MEBI)
SMALL = make_content(100_000, seed=2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB with nothing on it."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and _run("mount", "-t", "tmpfs", "-o", "size=2m", "small", place)
    if not mounted:
        pytest.skip("mounting a small file system needs root and a kernel that lets us")
    try:
        yield place
    finally:
        _run("umount", "-l", place)


def _run(*command: str | Path) -> bool:
    program = shutil.which(str(command[0]))
    if program is None:
        return False
    done = subprocess.run([program, *map(str, command[1:])], capture_output=True, check=False)
    return done.returncode == 0


def free(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def fill(place: Path, leave: int) -> Path:
    """Take all room but `leave` bytes."""
    path = place / "ballast"
    path.write_bytes(bytes(max(0, free(place) - leave)))
    return path


@asynccontextmanager
async def on_disk(index: Path, disk: Path, *, attributes: bool = True) -> AsyncIterator[Bench]:
    """A cache on the small disk, with its index elsewhere."""
    with make_executor() as executor:
        store = LocalStore.at(disk, executor, attributes=attributes)
        async with open_cache(index, store=store) as bench:
            yield bench
        store.close()


async def test_full_while_fetching_everybody_is_served_and_nothing_is_left(
    tmp_path: Path, small_disk: Path
) -> None:
    async with on_disk(tmp_path, small_disk) as bench:
        source = ScriptedSource(BIG, Answer(cut_at=4 * MEBI))
        streams = [await get(bench, source, BIG) for _ in range(4)]
        assert await asyncio.gather(*map(read_all, streams)) == [BIG] * 4
        await idle(bench)
        assert len(source.opened) == 2
        assert list(bench.store.objects()) == []
        await no_partial(small_disk)
        # What fits is cached as ever.
        for outcome in ("miss", "hit"):
            stream = await get(bench, ScriptedSource(SMALL), SMALL)
            assert stream.outcome == outcome
            assert await read_all(stream) == SMALL
            await idle(bench)


async def test_full_only_when_publishing(tmp_path: Path, small_disk: Path) -> None:
    content = make_content(4 * BLOCK_BYTES)
    gate = asyncio.Event()
    async with on_disk(tmp_path, small_disk, attributes=False) as bench:
        source = ScriptedSource(content, Answer(gates={len(content): gate}))
        reading = asyncio.create_task(read_all(await get(bench, source, content)))
        async with asyncio.timeout(5):
            while _partial_size(small_disk) < len(content):  # noqa: ASYNC110 - real time
                await asyncio.sleep(0.001)
        ballast = fill(small_disk, leave=0)
        gate.set()
        assert await reading == content
        await idle(bench)
        assert await bench.store.open(Digest.of(content)) is None
        await no_partial(small_disk)
        ballast.unlink()
        assert await read_all(await get(bench, source, content)) == content
        await idle(bench)
        assert (await get(bench, source, content)).outcome == "hit"


async def test_full_from_the_start(tmp_path: Path, small_disk: Path) -> None:
    async with on_disk(tmp_path, small_disk) as bench:
        fill(small_disk, leave=0)
        source = ScriptedSource(BIG)
        streams = [await get(bench, source, BIG) for _ in range(3)]
        assert await asyncio.gather(*map(read_all, streams)) == [BIG] * 3
        assert len(source.opened) == 1


async def test_a_disk_without_nowait_reads_is_read_in_threads(
    tmp_path: Path, small_disk: Path
) -> None:
    async with on_disk(tmp_path, small_disk) as bench:
        content = make_content(MEBI)
        source = ScriptedSource(content)
        for _ in range(2):
            assert await read_all(await get(bench, source, content)) == content
            await idle(bench)
        assert len(source.opened) == 1
        assert isinstance(bench.store, LocalStore)
        assert bench.store.mode.nowait or bench.store.mode.threaded > 0


async def no_partial(place: Path) -> None:
    """Return when none is left: they go when the last reader of a transfer has left."""
    async with asyncio.timeout(5):
        while list((place / "ingest").glob("*.partial")):  # noqa: ASYNC110 - real time
            await asyncio.sleep(0.001)


def _partial_size(place: Path) -> int:
    return sum(path.stat().st_size for path in (place / "ingest").glob("*.partial"))
