"""A large index: the start counts nothing, and eviction never holds the loop for long.

FACADE_ENTRIES sets how many entries (1,000,000 in the long run; the file then takes minutes to make).
Times are CPU times, so that a busy machine changes nothing.
"""

import asyncio
import hashlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.oci.digest import Digest
from facade.serving.blobs.eviction import Bounds, Evictor
from facade.serving.blobs.layout import Layout
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.possession import PossessionIndex
from tests.support.blobs import CountingObserver, make_executor

ENTRIES = int(os.environ.get("FACADE_ENTRIES", "50000"))
FILES = 600
SIZE = 1000
START_SECONDS = 1.5
HELD_SECONDS = 0.02


def fill(root: Path) -> list[Digest]:
    """ENTRIES rows, of which the FILES longest unused are really there."""
    rows = [
        (f"sha256:{hashlib.sha256(b'%d' % number).hexdigest()}", SIZE, 1e9 + number)
        for number in range(ENTRIES)
    ]
    database = sqlite3.connect(root / "index.db")
    with database:
        database.execute("PRAGMA synchronous = OFF")
        database.executemany("INSERT INTO object VALUES (?, ?, ?)", rows)
        database.executemany(
            "INSERT INTO possession VALUES ('c1', 'org/app', ?, 'ghcr.io')",
            [row[:1] for row in rows],
        )
    database.close()
    layout = Layout(root)
    digests = [Digest.parse(row[0]) for row in rows[:FILES]]
    for digest in digests:
        layout.blob(digest).parent.mkdir(parents=True, exist_ok=True)
        layout.blob(digest).write_bytes(bytes(SIZE))
        layout.tags(digest).write_bytes(b"")
    return digests


async def longest_turn(stop: asyncio.Event) -> float:
    """The most CPU time, in seconds, that one turn of the loop took in this thread."""
    longest, last = 0.0, time.thread_time()
    while not stop.is_set():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    return longest


@pytest.mark.slow
@pytest.mark.timeout(100 + ENTRIES // 2000)
async def test_it_starts_at_once_and_evicts_without_a_stall(tmp_path: Path) -> None:
    with make_executor() as executor:
        LocalStore.at(tmp_path, executor)
        await PossessionIndex.at(tmp_path / "index.db", SystemClock()).close()
        digests = fill(tmp_path)
        started = time.process_time()
        store = LocalStore.at(tmp_path, executor)
        index = PossessionIndex.at(tmp_path / "index.db", SystemClock())
        assert await index.totals() == (ENTRIES, ENTRIES * SIZE)
        start = time.process_time() - started
        # Half of what is really there must go, past as many entries that are wanted.
        wanted = frozenset(digests[::2])

        async def nothing() -> int:
            return 0

        evictor = Evictor(
            store=store,
            order=index,
            bounds=Bounds((ENTRIES - FILES // 2) * SIZE, high=1.0, low=1.0),
            observer=CountingObserver(),
            wanted=lambda: wanted,
            partials=nothing,
        )
        stop = asyncio.Event()
        watching = asyncio.create_task(longest_turn(stop))
        assert await evictor.room() < 0
        assert await evictor.evict() == (FILES // 2, FILES // 2 * SIZE)
        stop.set()
        held = await watching
        print(f"{ENTRIES} entries: start {start:.3f} s, longest turn {held * 1000:.1f} ms")
        assert start < START_SECONDS
        assert held < HELD_SECONDS
        assert set(dict(store.objects())) == wanted
        assert (await index.totals())[0] == ENTRIES - FILES // 2
        await index.close()
        store.close()
