"""The index: durable possession, and the order of use."""

import asyncio
import contextlib
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from facade.errors import Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.serving.blobs.indexfile import IndexFile, Lane
from facade.serving.blobs.possession import PossessionIndex
from tests.support.blobs import HOST, key_of
from tests.support.clock import FakeClock

KEY = key_of(b"content")


class CountedLane(Lane):
    """Counts its commits."""

    commits = 0

    async def write(self, job: Callable[[sqlite3.Connection], object]) -> None:
        self.commits += 1
        await super().write(job)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def index(tmp_path: Path, clock: FakeClock) -> AsyncIterator[PossessionIndex]:
    index = PossessionIndex.at(tmp_path / "index.db", clock)
    yield index
    await index.close()


async def test_only_the_very_key_has_it(index: PossessionIndex) -> None:
    assert not await index.has(KEY)
    await index.add(KEY, 7)
    await index.add(KEY, 7)
    assert await index.has(KEY)
    assert not await index.has(replace(KEY, connection_id="c2"))
    assert not await index.has(replace(KEY, repository=Repository.parse("org/other")))
    assert not await index.has(replace(KEY, digest=Digest.of(b"other")))
    assert await index.at_registry(HOST, KEY.digest)
    assert not await index.at_registry(RegistryHost.parse("quay.io"), KEY.digest)
    assert not await index.at_registry(HOST, Digest.of(b"other"))
    assert await index.totals() == (1, 7)


async def test_it_is_on_disk_when_add_returns(tmp_path: Path, index: PossessionIndex) -> None:
    await index.add(KEY, 7)
    other = PossessionIndex.at(tmp_path / "index.db", FakeClock())
    assert await other.has(KEY)
    await other.close()


async def test_what_comes_soon_after_a_commit_shares_the_next(
    tmp_path: Path, clock: FakeClock
) -> None:
    file = IndexFile(tmp_path / "paced.db")
    file.writes.close()
    file.writes = writes = CountedLane.open(tmp_path / "paced.db", "index-writes", 1.0)
    paced = PossessionIndex(file, clock, commit_seconds=0.5)
    await paced.add(KEY, 1)
    others = []
    for number in range(5):
        others.append(asyncio.create_task(paced.add(key_of(bytes([number])), 1)))
        await asyncio.sleep(0.01)  # long enough for a commit of its own
    assert writes.commits == 1
    await asyncio.gather(*others)
    assert writes.commits == 2
    assert await paced.totals() == (6, 6)
    last = asyncio.create_task(paced.add(key_of(b"last"), 1))
    await asyncio.sleep(0)
    await paced.close()  # does not leave it out
    await last
    again = PossessionIndex.at(tmp_path / "paced.db", clock)
    assert await again.has(key_of(b"last"))
    await again.close()


async def test_the_longest_unused_comes_first(index: PossessionIndex, clock: FakeClock) -> None:
    keys = [key_of(bytes([number])) for number in range(3)]
    for key in keys:
        await index.add(key, 1)
        clock.advance(1)
    index.touch(keys[0].digest)
    await index.flush()
    await index.flush()
    expected = [(key.digest, 1) for key in (keys[1], keys[2], keys[0])]
    found = await index.least_recently_used(10)
    assert [(each.digest, each.size) for each in found] == expected
    assert await index.least_recently_used(1, found[0]) == found[1:2]
    assert await index.least_recently_used(1, found[2]) == []


async def test_what_is_gone_is_forgotten_everywhere(index: PossessionIndex) -> None:
    await index.add(KEY, 7)
    await index.forget([KEY.digest])
    assert not await index.has(KEY)
    assert not await index.at_registry(HOST, KEY.digest)
    assert await index.totals() == (0, 0)


async def test_objects_found_in_the_store_join_the_order_without_possession(
    index: PossessionIndex,
) -> None:
    await index.add(KEY, 7)
    await index.notice([(KEY.digest, 99), (Digest.of(b"found"), 5)])
    assert await index.totals() == (2, 12)
    assert not await index.has(replace(KEY, digest=Digest.of(b"found")))


async def test_many_touches_are_written_early(index: PossessionIndex, clock: FakeClock) -> None:
    await index.add(KEY, 7)
    clock.advance(100)
    other = key_of(b"other")
    await index.add(other, 1)
    clock.advance(100)
    index.touch(KEY.digest)
    for number in range(10_000):
        index.touch(Digest("sha256", f"{number:064x}"))
    async with asyncio.timeout(5):
        while (await index.least_recently_used(1))[0][0] != other.digest:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_use_times_are_written_on_closing(tmp_path: Path, clock: FakeClock) -> None:
    index = PossessionIndex.at(tmp_path / "other.db", clock)
    await index.add(KEY, 7)
    clock.advance(1)
    await index.add(key_of(b"other"), 1)
    clock.advance(1)
    index.touch(KEY.digest)
    await index.close()
    index = PossessionIndex.at(tmp_path / "other.db", clock)
    assert (await index.least_recently_used(2))[1][0] == KEY.digest
    await index.close()


async def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "damaged.db"
    path.write_bytes(b"this is no database, but it is long enough to look like one" * 100)
    index = PossessionIndex.at(path, FakeClock())
    await index.add(KEY, 7)
    assert await index.has(KEY)
    await index.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE total SET objects = 'x'",
        "UPDATE total SET bytes = x'ff'",
        "UPDATE object SET digest = 'x'",
        "UPDATE object SET digest = x'ff'",
        "UPDATE object SET used = 'x'",
    ],
)
async def test_rows_that_make_no_sense_are_said(tmp_path: Path, damage: str) -> None:
    index = PossessionIndex.at(tmp_path / "odd.db", FakeClock())
    try:
        await index.add(KEY, 10)
        with closing(sqlite3.connect(tmp_path / "odd.db")) as database, database:
            database.execute(damage)
        asked = index.totals() if "total" in damage else index.least_recently_used(10)
        with pytest.raises(Unavailable, match="index is damaged"):
            await asked
        assert await index.renew()
        assert await index.totals() == (0, 0)
    finally:
        await index.close()


def overwritten(path: Path) -> None:
    for each in (path, path.with_name(f"{path.name}-wal")):
        with each.open("r+b") as file:
            file.write(random.Random(1).randbytes(each.stat().st_size))


def removed(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("harm", [overwritten, removed, emptied])
async def test_what_is_of_no_use_is_made_anew_while_it_runs_and_taken_up_by_all(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = tmp_path / "shared.db"
    ours, theirs = (PossessionIndex.at(path, FakeClock()) for _ in range(2))
    await ours.add(KEY, 7)
    assert not await ours.renew()
    assert await theirs.totals() == (1, 7)
    harm(path)
    renewed = [False, False]
    for _ in range(3):  # one that has its pages in memory finds out by the other's new file
        for number, index in enumerate((ours, theirs)):
            with contextlib.suppress(Unavailable):
                await index.totals()
                await index.add(key_of(bytes([9])), 1)
            renewed[number] |= await index.renew()
    assert renewed == [True, True]
    assert not await ours.renew()
    await ours.forget([key_of(bytes([9])).digest])
    before, _ = await ours.totals()
    assert not before
    for number, index in enumerate((ours, theirs)):
        await index.add(key_of(bytes([number])), 1)
    assert await ours.totals() == await theirs.totals() == (2, 2)
    assert await ours.has(KEY), "what this process saw proven stays so"
    assert not await theirs.has(KEY)
    await ours.close()
    again = PossessionIndex.at(path, FakeClock())
    assert await again.totals() == await theirs.totals() == (2, 2)
    await again.close()
    await theirs.close()
    again = PossessionIndex.at(path, FakeClock())
    assert await again.totals() == (2, 2)
    await again.close()


async def test_one_that_is_only_locked_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "locked.db"
    index = PossessionIndex.at(path, FakeClock())
    await index.add(KEY, 7)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            await index.forget([KEY.digest])
        assert not await index.renew()
    assert await index.totals() == (1, 7)
    await index.close()


async def test_one_that_cannot_be_made_anew_is_said_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    index = PossessionIndex.at(folder / "index.db", FakeClock())
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match="cannot be made anew"):
        await index.renew()
    folder.mkdir()
    assert await index.renew()
    await index.add(KEY, 7)
    assert await index.totals() == (1, 7)
    await index.close()


def test_a_place_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be opened"):
        PossessionIndex.at(tmp_path / "missing" / "index.db", FakeClock())


async def test_a_failing_database_is_unavailable(tmp_path: Path, index: PossessionIndex) -> None:
    with sqlite3.connect(tmp_path / "index.db") as database:
        database.execute("DROP TABLE object")
    database.close()
    with pytest.raises(Unavailable):
        await index.add(KEY, 7)
    assert not await index.has(KEY)
