"""`index.db`: which repository was seen to have which content, and when content was last used.

Guarantees: what `add` recorded survives a power loss when it returns; use times are written in
batches and may be lost. Nothing here is needed to trust content: losing the file costs requests
to registries. SQLite in one thread of its own; several processes may share the file. A positive
answer is remembered in memory, bounded, so that a warm hit asks no database.
"""

import asyncio
import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import structlog

from facade.clock import Clock
from facade.errors import Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.serving.blobs.port import BlobKey
from facade.serving.blobs.threads import run_to_end

log = structlog.get_logger(__name__)

MAX_REMEMBERED = 65_536
"""Positive answers kept in memory."""
MAX_TOUCHED = 10_000
"""Use times kept in memory before they are written early."""
_BUSY_SECONDS = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS possession (
    connection TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL, host TEXT NOT NULL,
    PRIMARY KEY (digest, connection, repository)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (
    digest TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS object_used ON object (used);
"""
_Result = TypeVar("_Result")


class PossessionIndex:
    """Implements `Possession`; also the least-recently-used order for `eviction`.

    Arguments:
        database: open, for use in `executor` only.
        executor: one thread, owned.
        clock: for use times.
    """

    def __init__(
        self, database: sqlite3.Connection, executor: ThreadPoolExecutor, clock: Clock
    ) -> None:
        self._database = database
        self._executor = executor
        self._clock = clock
        self._known: OrderedDict[BlobKey, None] = OrderedDict()
        self._touched: dict[Digest, float] = {}
        self._flushing: asyncio.Task[None] | None = None

    @classmethod
    def at(cls, path: Path, clock: Clock) -> Self:
        """The index at `path`, made when absent, made anew when damaged. Blocks.

        Raises Unavailable when it cannot be opened.
        """
        executor = ThreadPoolExecutor(1, thread_name_prefix="index")
        try:
            try:
                database = executor.submit(_open, path).result()
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                log.error("index_damaged", path=str(path), error=str(error))
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                database = executor.submit(_open, path).result()
        except (sqlite3.Error, OSError) as error:
            executor.shutdown()
            raise Unavailable(f"The index {path} cannot be opened: {error}.") from error
        return cls(database, executor, clock)

    async def has(self, key: BlobKey) -> bool:
        if key in self._known:
            self._known.move_to_end(key)
            return True
        row = await self._one(
            "SELECT 1 FROM possession WHERE digest = ? AND connection = ? AND repository = ?",
            (str(key.digest), key.connection_id, key.repository.name),
        )
        if row is not None:
            self._remember(key)
        return row is not None

    async def at_registry(self, host: RegistryHost, digest: Digest) -> bool:
        row = await self._one(
            "SELECT 1 FROM possession WHERE digest = ? AND host = ? LIMIT 1",
            (str(digest), str(host)),
        )
        return row is not None

    async def add(self, key: BlobKey, size: int) -> None:
        digest, now = str(key.digest), self._clock.time()
        row = (digest, key.connection_id, key.repository.name, str(key.host))

        def write() -> None:
            with self._database as database:
                database.execute(
                    "INSERT OR REPLACE INTO possession (digest, connection, repository, host)"
                    " VALUES (?, ?, ?, ?)",
                    row,
                )
                database.execute(
                    "INSERT INTO object (digest, size, used) VALUES (?, ?, ?)"
                    " ON CONFLICT (digest) DO UPDATE SET size = excluded.size, used = excluded.used",
                    (digest, size, now),
                )

        await self._run(write)
        self._remember(key)

    def proven(self, key: BlobKey) -> None:
        self._remember(key)

    def touch(self, digest: Digest) -> None:
        self._touched[digest] = self._clock.time()
        if len(self._touched) >= MAX_TOUCHED and self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_quietly())

    async def flush(self) -> None:
        """Write the use times noted so far. Raises Unavailable."""
        touched, self._touched = self._touched, {}
        rows = [(used, str(digest)) for digest, used in touched.items()]

        def write() -> None:
            with self._database as database:
                database.executemany("UPDATE object SET used = MAX(used, ?) WHERE digest = ?", rows)

        if rows:
            await self._run(write)

    async def notice(self, objects: Iterable[tuple[Digest, int]]) -> None:
        """Take objects that were found in the store into the order, as used just now if new."""
        now = self._clock.time()
        rows = [(str(digest), size, now) for digest, size in objects]

        def write() -> None:
            with self._database as database:
                database.executemany("INSERT OR IGNORE INTO object VALUES (?, ?, ?)", rows)

        await self._run(write)

    async def forget(self, digest: Digest) -> None:
        """The object is gone, and with it what was known of it."""
        text = str(digest)

        def write() -> None:
            with self._database as database:
                database.execute("DELETE FROM object WHERE digest = ?", (text,))
                database.execute("DELETE FROM possession WHERE digest = ?", (text,))

        for key in [key for key in self._known if key.digest == digest]:
            del self._known[key]
        await self._run(write)

    async def least_recently_used(self, limit: int, offset: int = 0) -> list[tuple[Digest, int]]:
        """Objects and their sizes, the longest unused first. Raises Unavailable."""

        def read() -> list[tuple[str, int]]:
            return self._database.execute(
                "SELECT digest, size FROM object ORDER BY used, digest LIMIT ? OFFSET ?",
                (limit, offset),
            ).fetchall()

        return [(Digest.parse(text), size) for text, size in await self._run(read)]

    async def totals(self) -> tuple[int, int]:
        """How many objects there are, and their bytes. Raises Unavailable."""
        row = await self._one("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM object", ())
        assert row is not None  # an aggregate always has a row
        return int(row[0]), int(row[1])

    async def close(self) -> None:
        """Write what is left, and close."""
        if self._flushing is not None:
            await self._flushing
        with contextlib.suppress(Unavailable):
            await self.flush()
        await self._run(self._database.close)
        self._executor.shutdown()

    def _remember(self, key: BlobKey) -> None:
        self._known[key] = None
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except Unavailable as error:
            log.warning("use_times_lost", error=error.message)
        finally:
            self._flushing = None

    async def _one(self, query: str, values: tuple[str, ...]) -> tuple[int, ...] | None:
        def read() -> tuple[int, ...] | None:
            row: tuple[int, ...] | None = self._database.execute(query, values).fetchone()
            return row

        return await self._run(read)

    async def _run(self, job: Callable[[], _Result]) -> _Result:
        try:
            return await run_to_end(self._executor, job)
        except sqlite3.Error as error:
            raise Unavailable(
                f"The cache's index cannot be used: {error}.", reason=Reason.INTERNAL
            ) from error


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # a commit survives a power loss
        database.executescript(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database
