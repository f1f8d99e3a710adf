"""The migrations make exactly the tables of the models, from nothing and back."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect

from facade.control.database.engine import Database
from facade.control.database.migrate import NEWEST, SCRIPTS, migrate
from facade.control.database.tables import metadata
from facade.errors import Unavailable


def _difference(connection: Connection) -> list[object]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, metadata))


async def test_up_from_empty_gives_exactly_the_tables_of_the_models(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/facade.db"
    await migrate(url)
    database = Database(url)
    async with database.read() as connection:
        difference = await connection.run_sync(_difference)
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await database.close()
    assert difference == []
    assert set(names) == {*metadata.tables, "alembic_version"}


def test_the_newest_step_is_the_last_one() -> None:
    from alembic.script import ScriptDirectory

    assert ScriptDirectory(str(SCRIPTS)).get_heads() == [NEWEST]


AGAIN = """
import asyncio, sys
from facade.control.database.migrate import migrate
asyncio.run(migrate(sys.argv[1]))
print("alembic" in sys.modules)
"""


def test_a_start_on_what_is_up_to_date_changes_nothing_and_loads_no_alembic(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/facade.db"
    for loads_it in (True, False):
        command = [sys.executable, "-c", AGAIN, url]
        shown = subprocess.run(command, check=True, capture_output=True, text=True)
        assert shown.stdout == f"{loads_it}\n"


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/facade.db"
    await migrate(url)
    database = Database(url)
    async with database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await database.close()
    with pytest.raises(Unavailable, match="newer"):
        await migrate(url)


async def test_down_to_nothing_and_up_again(tmp_path: Path) -> None:
    def down(connection: Connection) -> None:
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    url = f"sqlite+aiosqlite:///{tmp_path}/facade.db"
    await migrate(url)
    database = Database(url)
    async with database.write() as connection:
        await connection.run_sync(down)
    async with database.read() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await database.close()
    assert set(names) <= {"alembic_version", "sqlite_sequence"}
    await migrate(url)
