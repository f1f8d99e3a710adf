"""Another process has the cache's index to itself: pulls go on."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import Unavailable
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.serving.blobs.possession import PossessionIndex
from tests.support.blob_source import ScriptedSource
from tests.support.blobs import (
    CONNECTION,
    MEBI,
    Bench,
    get,
    idle,
    key_of,
    make_content,
    open_cache,
    read_all,
)

CONTENT = make_content(MEBI)
FRESH = make_content(MEBI, seed=2)
OTHER = Repository.parse("org/other")
HOLD = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute(sys.argv[2])
database.execute("BEGIN EXCLUSIVE")
database.execute("UPDATE object SET used = used")
print("locked", flush=True)
sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def locked(path: Path, pragma: str) -> AsyncIterator[None]:
    """A process that holds the lock until the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, str(path), pragma),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"locked\n"
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def ask(bench: Bench, repository: Repository, source: ScriptedSource) -> bytes:
    digest = Digest.of(source.content)
    stream = await bench.cache.get(CONNECTION, repository, digest, len(source.content), source)
    return await read_all(stream)


@pytest.mark.slow
async def test_nobody_can_write(tmp_path: Path) -> None:
    known, confirmed, fresh = (ScriptedSource(data) for data in (CONTENT, CONTENT, FRESH))
    async with open_cache(tmp_path, clock=SystemClock()) as bench:
        assert await read_all(await get(bench, known, CONTENT)) == CONTENT
        await idle(bench)
        async with locked(tmp_path / "index.db", "SELECT 1"):
            async with asyncio.timeout(20):
                assert await read_all(await get(bench, known, CONTENT)) == CONTENT
                assert await read_all(await get(bench, fresh, FRESH)) == FRESH
                # Two dozen wait for the lock together, not one after the other.
                got = await asyncio.gather(
                    *(ask(bench, Repository.parse(f"org/{n}"), confirmed) for n in range(24))
                )
            assert got == [CONTENT] * 24
            assert (confirmed.confirmed, confirmed.opened) == (24, [])
            assert len(known.opened) == len(fresh.opened) == 1
        assert not await bench.index.has(replace(key_of(CONTENT), repository=OTHER))
        await bench.index.add(key_of(FRESH), len(FRESH))


@pytest.mark.slow
async def test_nobody_can_even_read(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path, clock=SystemClock()) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
    # Only a connection that comes first can shut out readers of a write-ahead log.
    async with locked(tmp_path / "index.db", "PRAGMA locking_mode = EXCLUSIVE"):
        with pytest.raises(Unavailable, match="locked"):
            PossessionIndex.at(tmp_path / "index.db", SystemClock())


async def test_processes_that_find_it_damaged_together_repair_it_once(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(b"this is no database, but it is long enough to look like one" * 100)
    indexes = await asyncio.gather(
        *(asyncio.to_thread(PossessionIndex.at, path, SystemClock()) for _ in range(8))
    )
    for number, index in enumerate(indexes):
        await index.add(key_of(bytes([number])), 1)
    for index in indexes:
        assert await index.totals() == (8, 8)
    for index in indexes:
        await index.close()
