"""A revocation that the database does not take counts at once, and is written when it takes it.

The database is a real one, of which a second connection takes a table away: what needs that then fails
as on a broken disk.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from facade.control.database.engine import Database
from facade.control.devices.denylist import WRITE_AGAIN_SECONDS, DenyList, Issued, Revoked
from facade.errors import NotFound, Unavailable
from tests.support.clock import FakeClock
from tests.support.control import fresh_database

KIOSK = ("dev", "kiosk-7")
OTHER = ("dev", "kiosk-8")
PAIR = ("CN=CA", "1f")
TABLES = ("device_revocations", "certificate_revocations", "devices")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with fresh_database(tmp_path) as database:
        yield database


@pytest.fixture
async def deny_list(database: Database) -> DenyList:
    made = DenyList(database)
    await made.load()
    return made


@contextmanager
def without(folder: Path, table: str) -> Iterator[None]:
    """While this lasts nothing can use `table`."""
    with sqlite3.connect(folder / "facade.db", isolation_level=None) as other:
        other.execute(f"ALTER TABLE {table} RENAME TO aside")
        try:
            yield
        finally:
            other.execute(f"ALTER TABLE aside RENAME TO {table}")
    other.close()


async def stored(database: Database) -> DenyList:
    """What another process would find."""
    made = DenyList(database)
    await made.load()
    return made


@pytest.mark.parametrize("table", TABLES)
async def test_it_counts_at_once_and_the_operator_is_told(
    deny_list: DenyList, database: Database, tmp_path: Path, table: str
) -> None:
    """Whichever step fails: writing it, or reading what is there then."""
    told: list[bool] = []
    deny_list.on_change = lambda: told.append(KIOSK in deny_list.revocations().devices)
    with without(tmp_path, table):
        generation = deny_list.generation
        with pytest.raises(
            Unavailable, match="is refused from now on, but that is not written down"
        ):
            await deny_list.revoke_device(KIOSK, 50.0, "ann")
        assert told == [True]
        assert deny_list.revocations().devices == {KIOSK: float("inf")}
        assert deny_list.generation > generation
        assert deny_list.unwritten == 1
        assert deny_list.names() == [KIOSK]
    assert not (await stored(database)).names()


@pytest.mark.parametrize("table", TABLES)
async def test_a_single_certificate_too(deny_list: DenyList, tmp_path: Path, table: str) -> None:
    with without(tmp_path, table), pytest.raises(Unavailable, match="refused from now on"):
        await deny_list.revoke_certificates([PAIR], 50.0, "ann")
    assert deny_list.is_revoked(*PAIR)
    assert deny_list.revocations().certificates == {PAIR}


async def test_it_is_written_as_soon_as_the_database_takes_it(
    deny_list: DenyList, database: Database, tmp_path: Path
) -> None:
    clock = FakeClock()
    task = asyncio.create_task(deny_list.write_behind(clock))
    try:
        with without(tmp_path, "device_revocations"):
            for change in (
                deny_list.revoke_device(KIOSK, 50.0, "ann"),
                deny_list.revoke_certificates([PAIR], 51.0, "ann"),
            ):
                with suppress(Unavailable):
                    await change
            with capture_logs() as logs:
                await clock.wait_for_sleepers()
                clock.advance(WRITE_AGAIN_SECONDS)
                await clock.wait_for_sleepers()
            assert [
                entry["count"] for entry in logs if entry["event"] == "revocations_unwritten"
            ] == [2]
            assert deny_list.unwritten == 2
        clock.advance(WRITE_AGAIN_SECONDS)
        await clock.wait_for_sleepers()
        assert deny_list.unwritten == 0
        assert (await stored(database)).revocations() == deny_list.revocations()
        assert (await stored(database)).revoked(KIOSK) == Revoked(50.0, restored=False)
    finally:
        task.cancel()


async def test_the_next_change_writes_it_along(
    deny_list: DenyList, database: Database, tmp_path: Path
) -> None:
    with without(tmp_path, "device_revocations"), suppress(Unavailable):
        await deny_list.revoke_device(KIOSK, 50.0, "ann")
    await deny_list.revoke_device(OTHER, 60.0, "bob")
    assert deny_list.unwritten == 0
    assert (await stored(database)).names() == [KIOSK, OTHER]


async def test_restoring_what_was_never_written_admits_nothing_older(
    deny_list: DenyList, database: Database, tmp_path: Path
) -> None:
    with without(tmp_path, "device_revocations"):
        with suppress(Unavailable):
            await deny_list.revoke_device(KIOSK, 50.0, "ann")
        with pytest.raises(Unavailable):
            await deny_list.restore(KIOSK, 55.0, "ann")
        assert deny_list.revocations().devices == {KIOSK: float("inf")}
    await deny_list.restore(KIOSK, 55.0, "ann")
    for each in (deny_list, await stored(database)):
        assert each.revocations().devices == {KIOSK: 50.0}
    with pytest.raises(NotFound):
        await deny_list.restore(KIOSK, 56.0, "ann")


async def test_revoking_again_while_unwritten_keeps_one_entry(
    deny_list: DenyList, database: Database, tmp_path: Path
) -> None:
    await deny_list.revoke_device(KIOSK, 40.0, "ann")
    await deny_list.restore(KIOSK, 45.0, "ann")
    with without(tmp_path, "certificate_revocations"):
        for at in (50.0, 60.0):
            with suppress(Unavailable):
                await deny_list.revoke_device(KIOSK, at, "ann")
            with suppress(Unavailable):
                await deny_list.revoke_certificates([PAIR], at, "ann")
    await deny_list.revoke_certificates([PAIR], 70.0, "ann")
    assert deny_list.unwritten == 0
    assert (await stored(database)).revoked(KIOSK) == Revoked(60.0, restored=False)
    assert (await stored(database)).revocations() == deny_list.revocations()


async def test_who_stops_waiting_leaves_it_in_force(
    deny_list: DenyList, database: Database
) -> None:
    task = asyncio.create_task(deny_list.revoke_device(KIOSK, 50.0, "ann"))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert deny_list.revocations().devices == {KIOSK: float("inf")}
    await deny_list.revoke_device(OTHER, 60.0, "ann")
    assert (await stored(database)).revocations() == deny_list.revocations()


async def test_a_certificate_that_cannot_be_recorded_is_not_known(
    deny_list: DenyList, database: Database, tmp_path: Path
) -> None:
    issued = Issued("dev", "kiosk-7", "CN=CA", "2a", "ff", 0.0, 100.0, 0.0, "ann")
    with without(tmp_path, "certificate_revocations"), pytest.raises(Unavailable):
        await deny_list.record(issued)
    assert deny_list.issued(KIOSK) == (await stored(database)).issued(KIOSK) == ()


async def test_a_row_that_is_there_although_its_commit_failed_is_no_conflict(
    deny_list: DenyList, database: Database, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "facade.db") as other:
        other.execute("INSERT INTO certificate_revocations VALUES (?, ?, 1.0, 'ann')", PAIR)
        other.execute(
            "INSERT INTO device_revocations (fleet, name, revoked_at, revoked_by) "
            "VALUES (?, ?, 1.0, 'ann')",
            KIOSK,
        )
    other.close()
    await deny_list.revoke_certificates([PAIR], 1.0, "ann")
    await deny_list.revoke_device(KIOSK, 1.0, "ann")
    assert deny_list.unwritten == 0
    assert (await stored(database)).revocations() == deny_list.revocations()
