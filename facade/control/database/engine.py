"""The database, and the only three ways to use it: `read()`, `write()` and `write_at_once()`.

Guarantees: a write transaction takes SQLite's write lock at its first statement (BEGIN IMMEDIATE), so
what it reads cannot change before what it writes; both end by commit or rollback whatever
happens; foreign keys are enforced; the file is readable by its owner only; database errors
leave here as `Conflict` or `Unavailable`, and never with a statement's parameters in them.
Does not guarantee order between two transactions, or that a commit survives a lying disk.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from facade.errors import Conflict, Invalid, Unavailable
from facade.reasons import Reason

BUSY_TIMEOUT_MS = 5_000
"""Milliseconds that a statement waits for another process's write lock."""
CHECKPOINT_ATTEMPTS = 3
_WRITE = "facade_write"
_DRIVER = SQLiteDialect_pysqlite()


class Database:
    """One database, opened lazily.

    Arguments:
        url: SQLAlchemy URL, like `sqlite+aiosqlite:////var/lib/facade/facade.db`.

    Raises Invalid when the URL cannot be read or names a database that is not supported.
    """

    def __init__(self, url: str) -> None:
        self._engine = _create_engine(url)
        self._writer = self._engine.execution_options(**{_WRITE: True})
        self._own: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database-writes")

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.to_thread(self._thread.shutdown)
        await asyncio.to_thread(self._close_own)
        await self._engine.dispose()

    async def erase_leftovers(self) -> None:
        """Leave nothing of what was changed or deleted in the write-ahead log either.

        Raises Unavailable when readers kept it from being emptied for CHECKPOINT_ATTEMPTS.
        """
        for _ in range(CHECKPOINT_ATTEMPTS):
            async with _errors(), self._engine.connect() as connection:
                raw = (await connection.get_raw_connection()).driver_connection
                assert raw is not None
                # Outside of a transaction (SQLite, "PRAGMA wal_checkpoint"); waits busy_timeout.
                cursor = await raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                row = await cursor.fetchone()
                await cursor.close()
            if row is None or not row[0]:
                return
        raise Unavailable(
            "The control database was too busy to erase what was replaced. Try again.",
            reason=Reason.CONTROL_UNAVAILABLE,
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that sees one state and changes nothing. Raises Unavailable."""
        async with _errors(), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that commits when its block ends, and rolls back when it raises.

        Raises Conflict when a constraint is violated, Unavailable for everything else.
        """
        async with _errors(), self._writer.begin() as connection:
            yield connection

    async def write_at_once(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Have `work` done in a transaction as of `write`; it must need nothing but the connection.

        For what is written again and again: all its statements (`texts`) take one way to a thread, on a
        connection of the driver's that stays open. With `write` each of them takes its own, and SQLAlchemy's,
        which costs more than the statement. Cancelling the caller does not end it. Raises as `write`
        does, and what `work` raises.
        """
        async with _errors():
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._transact, work)

    def _transact(self, work: Callable[[sqlite3.Connection], object]) -> None:
        if self._own is None:
            self._own = _connect(self._engine.url)
        try:
            self._own.execute("BEGIN IMMEDIATE")
            work(self._own)
            self._own.execute("COMMIT")
        except BaseException:
            # By hand: a connection of which a statement is still held outlives its close, with its lock.
            with suppress(sqlite3.Error):
                self._own.rollback()
            self._close_own()
            raise

    def _close_own(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None


@asynccontextmanager
async def _errors() -> AsyncIterator[None]:
    try:
        yield
    except (IntegrityError, sqlite3.IntegrityError) as error:
        raise Conflict("The database refused the change: it contradicts what is there.") from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if type(cause) is sqlite3.DatabaseError:
            raise Unavailable(
                f"The control database is damaged ({cause}). Stop the facade and restore the "
                "file from a backup: deploy/guides/operations.md tells how.",
                reason=Reason.CONTROL_UNAVAILABLE,
            ) from error
        # What SQLite itself says, like "database or disk is full": no statement, no values.
        said = cause if isinstance(cause, sqlite3.OperationalError) else type(error).__name__
        raise Unavailable(
            f"The control database cannot be used just now ({said}).",
            reason=Reason.CONTROL_UNAVAILABLE,
        ) from error


def _create_engine(url: str) -> AsyncEngine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Invalid("The database URL cannot be read.") from error
    if parsed.drivername != "sqlite+aiosqlite":
        raise Invalid("Only sqlite+aiosqlite:///path databases are supported.")
    name = parsed.database or ""
    in_memory = name in ("", ":memory:") or parsed.query.get("mode") == "memory"
    if in_memory or name.startswith("file:"):
        raise Invalid("The database must be a file: each connection has a memory of its own.")
    _create_private(Path(name))
    # hide_parameters: an error's text would otherwise quote the values being written.
    engine = create_async_engine(parsed, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _on_connect)
    event.listen(engine.sync_engine, "begin", _on_begin)
    return engine


def _connect(url: URL) -> sqlite3.Connection:
    """A connection as the engine's are, without the engine. Raises sqlite3.Error."""
    (where,), options = _DRIVER.create_connect_args(url)
    connection: sqlite3.Connection = sqlite3.connect(where, **options)
    try:
        _on_connect(connection, None)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _create_private(path: Path) -> None:
    """Make the file with mode 0600; SQLite gives its -wal and -shm files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise Unavailable(
            f"The database file cannot be opened: {error.strerror}.",
            reason=Reason.CONTROL_UNAVAILABLE,
        ) from error


def _on_connect(dbapi_connection: Any, record: object) -> None:
    # The driver must not open transactions by itself: `_on_begin` does (SQLAlchemy, "SQLite:
    # Serializable isolation / Savepoints / Transactional DDL").
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",  # a revocation that was answered must survive power loss
        "foreign_keys=ON",
        "secure_delete=ON",  # a sealed secret that was replaced or removed leaves no copy
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _on_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
