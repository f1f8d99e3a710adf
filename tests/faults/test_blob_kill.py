"""kill -9 in the middle of a transfer: the next process picks it up where it stopped."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from facade.oci.digest import Digest
from tests.support.blob_source import ScriptedSource
from tests.support.blobs import MEBI, get, idle, make_content, open_cache, read_all

ROOT = Path(__file__).parents[2]
SIZE = 5 * MEBI + 77
STOP = 3 * MEBI + 5


async def kill_in_the_middle(root: Path, stop: int = STOP) -> None:
    """Run the process until its reader had everything up to `stop`, and the file too: then kill it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "tests/faults/blob_process.py"),
        str(root),
        str(SIZE),
        str(stop),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while not (line := await process.stdout.readline()).strip().isdigit() or int(line) < stop:
            assert line, "the process ended early"
        while _kept(root) < stop:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.stdout.read()
    assert await process.wait() == -signal.SIGKILL


def _kept(root: Path) -> int:
    (partial,) = (root / "ingest").iterdir()
    return partial.stat().st_size


async def test_killed_while_fetching_it_resumes_and_serves_everything(tmp_path: Path) -> None:
    content = make_content(SIZE)
    source = ScriptedSource(content)
    await kill_in_the_middle(tmp_path)
    (partial,) = (tmp_path / "ingest").iterdir()
    assert partial.stat().st_size == STOP
    async with open_cache(tmp_path) as bench:
        assert list(bench.store.objects()) == []
        assert await read_all(await get(bench, source, content)) == content
        assert source.opened == [(STOP, None)]
        await idle(bench)
        assert (await get(bench, source, content)).outcome == "hit"
    assert list((tmp_path / "ingest").iterdir()) == []


async def test_killed_twice_and_with_a_damaged_partial_it_still_ends_well(tmp_path: Path) -> None:
    content = make_content(SIZE)
    await kill_in_the_middle(tmp_path, MEBI)
    await kill_in_the_middle(tmp_path)
    (partial,) = (tmp_path / "ingest").iterdir()
    with partial.open("r+b") as file:
        file.seek(2 * MEBI)
        file.write(bytes(4096))
    source = ScriptedSource(content)
    async with open_cache(tmp_path) as bench:
        # A runtime asks again after the cut; strict mode would not even have shown it.
        results = await asyncio.gather(
            read_all(await get(bench, source, content)), return_exceptions=True
        )
        assert isinstance(results[0], Exception)
        assert await read_all(await get(bench, source, content)) == content
        assert source.opened == [(STOP, None), (0, None)]
        await idle(bench)
        assert list(bench.store.objects()) == [(Digest.of(content), SIZE)]
