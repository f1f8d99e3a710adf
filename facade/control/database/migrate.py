"""Bringing a database up to date, at start.

Guarantees: `migrate` leaves the newest schema or, when it fails, the schema as it was: all steps run in
one transaction, and two processes that start at once take turns. Refuses a database that a
newer version of Facade has written. Alembic is imported here only, and only when a step is missing.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect

from facade.control.database.engine import Database
from facade.errors import Unavailable
from facade.reasons import Reason

SCRIPTS = Path(__file__).parent / "migrations"
NEWEST = "0001"
"""The last step's name. Loading Alembic to hear that nothing is to be done takes longer than all the
rest of what a start does with the database."""


async def migrate(url: str) -> None:
    """Upgrade the database at `url` to the newest schema, creating it when it is not there.

    Raises Invalid for a URL that is not supported, Unavailable when the database cannot be
    upgraded.
    """
    database = Database(url)
    try:
        async with database.write() as connection:
            await connection.run_sync(upgrade)
    finally:
        await database.close()


def upgrade(connection: Connection) -> None:
    """Run every missing step in the transaction of `connection`. Raises Unavailable."""
    if _is_newest(connection):
        return
    from alembic import command  # noqa: PLC0415 - heavy, and needed once per start
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise Unavailable(
            f"The database cannot be upgraded: {error} (was it written by a newer Facade?)",
            reason=Reason.CONTROL_UNAVAILABLE,
        ) from error


def _is_newest(connection: Connection) -> bool:
    if not inspect(connection).has_table("alembic_version"):
        return False
    steps = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars()
    return steps.all() == [NEWEST]
