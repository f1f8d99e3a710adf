"""The three ways to use the database: commits, rollbacks, no lost update, private files."""

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from facade.control.database.engine import Database
from facade.control.database.migrate import migrate
from facade.control.database.tables import device_revocations as table
from facade.control.database.texts import text_of
from facade.errors import Conflict, Invalid, Unavailable

ROW = {"fleet": "dev", "name": "kiosk", "revoked_at": 1.0, "revoked_by": "me"}


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.fixture
async def url(tmp_path: Path) -> str:
    url = f"sqlite+aiosqlite:///{tmp_path}/facade.db"
    await migrate(url)
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()


async def test_write_commits_and_read_sees_it(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(table).values(ROW))
    async with database.read() as connection:
        assert (await connection.execute(select(table.c.name))).scalar_one() == "kiosk"


async def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    async def fail_half_way() -> None:
        async with database.write() as connection:
            await connection.execute(insert(table).values(ROW))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        await fail_half_way()
    async with database.read() as connection:
        assert (await connection.execute(select(table))).all() == []


async def test_a_violated_constraint_is_a_conflict_without_the_values(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(table).values(ROW))
    with pytest.raises(Conflict) as caught:
        async with database.write() as connection:
            await connection.execute(insert(table).values(ROW))
    assert "kiosk" not in f"{caught.value} {caught.value.__cause__}"


async def test_any_other_database_error_is_unavailable(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.read() as connection:
            await connection.execute(text("SELECT * FROM nothing"))


async def test_a_full_disk_is_told_in_sqlites_words_and_without_the_values(
    database: Database,
) -> None:
    async def fill() -> None:
        async with database.write() as connection:
            await connection.execute(text("PRAGMA max_page_count = 1"))
            await connection.execute(text("CREATE TABLE big (value TEXT)"))
            value = {"value": "canary" * 100_000}
            await connection.execute(text("INSERT INTO big VALUES (:value)"), value)

    with pytest.raises(Unavailable, match="database or disk is full") as caught:
        await fill()
    assert "canary" not in str(caught.value)


async def test_a_damaged_file_is_called_that_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "facade.db").write_text("no database, " * 100)
    with pytest.raises(Unavailable, match="is damaged"):
        await migrate(f"sqlite+aiosqlite:///{tmp_path}/facade.db")


_ADD = text_of(insert(table), list(ROW))


async def test_what_is_written_at_once_is_there_with_the_same_pragmas(database: Database) -> None:
    got: dict[str, object] = {}

    def work(connection: sqlite3.Connection) -> None:
        assert connection.in_transaction
        connection.executemany(_ADD, [ROW, {**ROW, "name": "till"}])
        for name in (
            "journal_mode",
            "foreign_keys",
            "busy_timeout",
            "synchronous",
            "secure_delete",
        ):
            [got[name]] = connection.execute(f"PRAGMA {name}").fetchone()

    await database.write_at_once(work)
    async with database.read() as connection:
        names = (await connection.execute(select(table.c.name).order_by("name"))).scalars().all()
    assert names == ["kiosk", "till"]
    assert got == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "synchronous": 2,
        "secure_delete": 1,
    }


async def test_what_fails_at_once_leaves_nothing_and_does_not_stand_in_the_way(
    database: Database,
) -> None:
    def twice(connection: sqlite3.Connection) -> None:
        connection.executemany(_ADD, [ROW, ROW])

    def half(connection: sqlite3.Connection) -> None:
        connection.execute(_ADD, ROW)
        raise RuntimeError("half way")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA max_page_count = 1")
        connection.execute(_ADD, {**ROW, "name": "canary" * 100_000})

    with pytest.raises(Conflict) as conflict:
        await database.write_at_once(twice)
    with pytest.raises(Unavailable, match="database or disk is full") as full:
        await database.write_at_once(fill)
    with pytest.raises(Unavailable, match="syntax error") as unknown:
        await database.write_at_once(lambda connection: connection.execute("DELETE FROM nothing"))
    with pytest.raises(RuntimeError):
        await database.write_at_once(half)
    for caught in (conflict, full, unknown):
        said = f"{caught.value} {caught.value.__cause__}"
        assert "kiosk" not in said
        assert "canary" not in said
    async with database.read() as connection:
        assert (await connection.execute(select(table))).all() == []
    await database.write_at_once(lambda connection: connection.execute(_ADD, ROW))
    async with database.read() as connection:
        assert len((await connection.execute(select(table))).all()) == 1


async def test_what_fails_at_once_keeps_no_lock_though_a_statement_is_still_held(
    database: Database,
) -> None:
    held: list[object] = []

    def half(connection: sqlite3.Connection) -> None:
        connection.executemany(_ADD, [ROW, {**ROW, "name": "till"}])
        rows = connection.execute("SELECT name FROM device_revocations")
        held.append((rows, rows.fetchone()))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        await database.write_at_once(half)
    await database.write_at_once(lambda connection: connection.execute(_ADD, ROW))
    async with database.read() as connection:
        assert len((await connection.execute(select(table))).all()) == 1


async def test_a_file_damaged_since_is_called_that_where_records_are_written_too(
    tmp_path: Path,
) -> None:
    (tmp_path / "facade.db").write_text("no database, " * 100)
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/facade.db")
    with pytest.raises(Unavailable, match="is damaged"):
        await database.write_at_once(lambda _: None)
    await database.close()


async def test_two_writers_that_read_first_lose_no_update(url: str) -> None:
    """With a deferred BEGIN both would read 0 and one would fail or be lost."""
    first, second = Database(url), Database(url)
    async with first.write() as connection:
        await connection.execute(insert(table).values(ROW))

    async def count_up(database: Database) -> None:
        for _ in range(10):
            async with database.write() as connection:
                seen = (await connection.execute(select(table.c.revoked_at))).scalar_one()
                await asyncio.sleep(0)
                await connection.execute(table.update().values(revoked_at=seen + 1))

    await asyncio.gather(count_up(first), count_up(second))
    async with first.read() as connection:
        assert (await connection.execute(select(table.c.revoked_at))).scalar_one() == 21
    await first.close()
    await second.close()


async def test_pragmas_are_set_on_every_connection(database: Database) -> None:
    async with database.read() as connection:
        got = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert got == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000, "synchronous": 2}


async def test_the_files_are_readable_by_their_owner_only(
    database: Database, tmp_path: Path
) -> None:
    async with database.write() as connection:
        await connection.execute(insert(table).values(ROW))
        modes = _modes(tmp_path)
    assert "facade.db-wal" in modes
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("url", ["postgresql+asyncpg://db/facade", "sqlite:///x.db", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(Invalid):
        Database(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:///",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///file:x?mode=memory&uri=true",
        "sqlite+aiosqlite:///x.db?mode=memory",
    ],
)
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="must be a file"):
        Database(url)


async def test_a_path_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be opened"):
        Database(f"sqlite+aiosqlite:///{tmp_path}/file/facade.db")
