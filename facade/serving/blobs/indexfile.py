"""The file behind `possession`: one SQLite database that several processes share.

Guarantees: readers never wait for a writer (write-ahead log, connections and threads of their own); a
commit survives a power loss; processes that start together make, repair and extend the file one after
the other; one that turns out damaged, or is gone, is made anew by `renew`, which every process is to
ask for now and then to have the new one; totals are kept by the database itself, so that a million
objects cost nothing to count.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CUT = (sqlite3.SQLITE_IOERR_SHORT_READ,)
"""The log ends before what its own index says: no fault of the disk, which has other codes."""
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
    """A connection and the one thread that uses it: work is done in the order in which it came.

    Arguments:
        connect: makes the connection, in the thread.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        executor: ThreadPoolExecutor,
        connect: Callable[[], sqlite3.Connection],
    ) -> None:
        self._database = database
        self._executor = executor
        self._connect = connect
        self.damaged = False
        """What was read through it cannot be what was written."""

    @classmethod
    def open(cls, path: Path, name: str, busy_seconds: float) -> Self:
        """Blocks. Raises sqlite3.Error."""
        executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        connect = partial(_connect, path, busy_seconds)
        try:
            return cls(executor.submit(connect).result(), executor, connect)
        except BaseException:
            executor.shutdown()
            raise

    async def run(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do it, in the thread. Raises Unavailable."""
        try:
            return await run_to_end(self._executor, lambda: self._do(job))
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

    def _do(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        try:
            return job(self._database)
        except FAILURES as error:
            # In the thread, so that it is said of this connection and not of the next.
            self.damaged = self.damaged or _is_damage(error)
            raise

    def reopen(self) -> None:
        """Connect again, to what is at the path now. Blocks. Raises sqlite3.Error."""
        self._executor.submit(self._reopen).result()

    def _reopen(self) -> None:
        former, self._database = self._database, self._connect()
        self.damaged = False
        with contextlib.suppress(sqlite3.Error):
            former.close()

    def close(self) -> None:
        """Blocks."""
        self._executor.submit(self._database.close).result()
        self._executor.shutdown()


class IndexFile:
    """The database at `path`, made when absent, made anew when damaged. Blocks.

    Raises Unavailable when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="index-file")
        try:
            with _alone(path):
                _prepare(path)
                self._place = _place(path)
                self.reads = Lane.open(path, "index-reads", READ_BUSY_SECONDS)
                try:
                    self.writes = Lane.open(path, "index-writes", WRITE_BUSY_SECONDS)
                except BaseException:
                    self.reads.close()
                    raise
        except (*FAILURES, OSError) as error:
            raise Unavailable(f"The index {path} cannot be opened: {error}.") from error

    async def renew(self) -> bool:
        """Take up what is at the path, if it is another file than ours or ours is damaged, which is
        then made anew, empty; whether it was so. Raises Unavailable.
        """
        if not self._is_damaged and _place(self._path) == self._place:
            return False
        try:
            await run_to_end(self._executor, self._take_up)
        except (*FAILURES, OSError) as error:
            raise Unavailable(
                f"The cache's index cannot be made anew: {error}.", reason=Reason.INTERNAL
            ) from error
        return True

    def close(self) -> None:
        """Blocks."""
        self._executor.shutdown()
        for lane in (self.writes, self.reads):
            lane.close()

    @property
    def _is_damaged(self) -> bool:
        return self.reads.damaged or self.writes.damaged

    def _take_up(self) -> None:
        with _alone(self._path):
            there = _place(self._path)
            if there is None or (self._is_damaged and there == self._place):  # else another did it
                log.error("index_damaged" if there else "index_gone", path=str(self._path))
                _remove(self._path)
            _prepare(self._path)
            place = _place(self._path)
            self.writes.reopen()
            self.reads.reopen()
            self._place = place


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
        _remove(path)
        _make(path)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _place(path: Path) -> tuple[int, int] | None:
    """Which file is there; None = none, or one that was emptied."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_size else None


def _is_damage(error: Exception) -> bool:
    if not isinstance(error, sqlite3.Error):
        return True
    code = getattr(error, "sqlite_errorcode", 0)
    return code in _CUT or code & 0xFF in _DAMAGE  # the rest says it more exactly


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
