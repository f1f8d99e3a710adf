"""The file behind `possession`: one SQLite database that several processes share.

Guarantees: readers never wait for a writer (write-ahead log, connections and threads of their own); a
commit survives a power loss; processes that start together make, repair and extend the file one after
the other; totals are kept by the database itself, so that a million objects cost nothing to count.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import structlog

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.blobs.threads import run_to_end

log = structlog.get_logger(__name__)

FAILURES = (sqlite3.Error, UnicodeDecodeError)
"""What a database raises; the second where a damaged one has names in its schema that are no text."""
READ_BUSY_SECONDS = 0.5
"""A reader waits only for somebody who has the whole file to himself."""
WRITE_BUSY_SECONDS = 2.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS possession (
    connection TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, host TEXT NOT NULL,
    PRIMARY KEY (digest, connection, repository)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (
    digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS object_used ON object (used);
CREATE TABLE IF NOT EXISTS total (objects INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS object_came AFTER INSERT ON object BEGIN
    UPDATE total SET objects = objects + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER IF NOT EXISTS object_went AFTER DELETE ON object BEGIN
    UPDATE total SET objects = objects - 1, bytes = bytes - OLD.size;
END;
CREATE TRIGGER IF NOT EXISTS object_changed AFTER UPDATE OF size ON object BEGIN
    UPDATE total SET bytes = bytes - OLD.size + NEW.size;
END;
"""
_COUNT = """
INSERT INTO total SELECT COUNT(*), COALESCE(SUM(size), 0) FROM object
WHERE NOT EXISTS (SELECT 1 FROM total)
"""
_Result = TypeVar("_Result")


class Lane:
    """A connection and the one thread that uses it: work is done in the order in which it came."""

    def __init__(self, database: sqlite3.Connection, executor: ThreadPoolExecutor) -> None:
        self._database = database
        self._executor = executor

    @classmethod
    def open(cls, path: Path, name: str, busy_seconds: float) -> Self:
        """Blocks. Raises sqlite3.Error."""
        executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        try:
            return cls(executor.submit(_connect, path, busy_seconds).result(), executor)
        except BaseException:
            executor.shutdown()
            raise

    async def run(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do it, in the thread. Raises Unavailable."""
        try:
            return await run_to_end(self._executor, lambda: job(self._database))
        except FAILURES as error:
            raise Unavailable(
                f"The cache's index cannot be used: {error}.", reason=Reason.INTERNAL
            ) from error

    async def write(self, job: Callable[[sqlite3.Connection], object]) -> None:
        """Do it in one transaction, durable when this returns. Raises Unavailable."""

        def transact(database: sqlite3.Connection) -> None:
            with database:
                job(database)

        await self.run(transact)

    def close(self) -> None:
        """Blocks."""
        self._executor.submit(self._database.close).result()
        self._executor.shutdown()


def open_lanes(path: Path) -> tuple[Lane, Lane]:
    """(reads, writes) on the database at `path`, made when absent, made anew when damaged. Blocks.

    Raises Unavailable when it cannot be opened.
    """
    try:
        with _alone(path):
            _prepare(path)
        reads = Lane.open(path, "index-reads", READ_BUSY_SECONDS)
        try:
            return reads, Lane.open(path, "index-writes", WRITE_BUSY_SECONDS)
        except BaseException:
            reads.close()
            raise
    except (*FAILURES, OSError) as error:
        raise Unavailable(f"The index {path} cannot be opened: {error}.") from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No other process opens the database meanwhile: two that both repair it would lose rows."""
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(path: Path) -> None:
    try:
        _make(path)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        log.error("index_damaged", path=str(path), error=str(error))
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        _make(path)


def _make(path: Path) -> None:
    database = _connect(path, WRITE_BUSY_SECONDS)
    try:
        database.executescript(_SCHEMA)
        if database.execute("SELECT 1 FROM total").fetchone() is None:
            with database:
                database.execute(_COUNT)
    finally:
        database.close()


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=busy_seconds)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # a commit survives a power loss
    except FAILURES:
        database.close()
        raise
    return database
