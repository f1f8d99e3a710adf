"""`index.db`: which repository was seen to have which content, and when content was last used.

Guarantees: what `add` recorded survives a power loss when it returns; what is added at the same time, or
soon after a commit, is written together, so that a slow disk or another process's lock costs all of it one wait; use times
are written in batches and may be lost. Nothing here is needed to trust content: losing the file costs
requests to registries. Several processes may share the file (`indexfile`), and take up a new one when it
is damaged (`renew`). A positive answer is remembered in memory, bounded, so that a warm hit asks no database.
"""

import asyncio
import contextlib
import sqlite3
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple, Self

import structlog

from facade.clock import Clock
from facade.errors import Invalid, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.serving.blobs.eviction import Place
from facade.serving.blobs.indexfile import IndexFile
from facade.serving.blobs.port import BlobKey

log = structlog.get_logger(__name__)

MAX_REMEMBERED = 65_536
"""Positive answers kept in memory."""
COMMIT_SECONDS = 0.02
"""The least time between two commits of what was added: each costs a flush and two changes of thread, and an
image's layers come in dozens a second. Whoever adds meanwhile waits; the first does not."""
MAX_TOUCHED = 10_000
"""Use times kept in memory before they are written early."""


class _Added(NamedTuple):
    """Parameters of both statements that record one."""

    digest: str
    connection: str
    repository: str
    host: str
    size: int
    used: float


_Waiting = tuple[_Added, "asyncio.Future[None]"]


class PossessionIndex:
    """Implements `HotPossession`; also the least-recently-used order for `eviction`.

    Arguments:
        file: owned.
        clock: for use times.
        commit_seconds: as COMMIT_SECONDS says.
    """

    def __init__(
        self,
        file: IndexFile,
        clock: Clock,
        *,
        commit_seconds: float = COMMIT_SECONDS,
    ) -> None:
        self._file = file
        self._reads = file.reads
        self._writes = file.writes
        self._clock = clock
        self._known: OrderedDict[BlobKey, None] = OrderedDict()
        self._keys: defaultdict[Digest, set[BlobKey]] = defaultdict(set)
        self._touched: dict[Digest, float] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._added: list[_Waiting] = []
        self._adding: asyncio.Task[None] | None = None
        self._commit_seconds = commit_seconds
        self._rested_at = 0.0
        """When the next commit may be made, by the loop's clock."""

    @classmethod
    def at(cls, path: Path, clock: Clock, *, commit_seconds: float = COMMIT_SECONDS) -> Self:
        """The index at `path`, made when absent, made anew when damaged. Blocks.

        Raises Unavailable when it cannot be opened.
        """
        return cls(IndexFile(path), clock, commit_seconds=commit_seconds)

    async def has(self, key: BlobKey) -> bool:
        if self.remembers(key):
            return True
        row = await self._one(
            "SELECT 1 FROM possession WHERE digest = ? AND connection = ? AND repository = ?",
            (str(key.digest), key.connection_id, key.repository.name),
        )
        if row is not None:
            self.proven(key)
        return row is not None

    def remembers(self, key: BlobKey) -> bool:
        known = key in self._known
        if known:
            self._known.move_to_end(key)
        return known

    async def at_registry(self, host: RegistryHost, digest: Digest) -> bool:
        row = await self._one(
            "SELECT 1 FROM possession WHERE digest = ? AND host = ? LIMIT 1",
            (str(digest), str(host)),
        )
        return row is not None

    async def add(self, key: BlobKey, size: int) -> None:
        names = (str(key.digest), key.connection_id, key.repository.name, str(key.host))
        written = asyncio.get_running_loop().create_future()
        self._added.append((_Added(*names, size, self._clock.time()), written))
        if self._adding is None:
            self._adding = asyncio.create_task(self._write_added())
        await written  # who is cancelled leaves nothing out, and disturbs nobody
        self.proven(key)

    def proven(self, key: BlobKey) -> None:
        self._known[key] = None
        self._keys[key.digest].add(key)
        if len(self._known) > MAX_REMEMBERED:
            oldest, _ = self._known.popitem(last=False)
            keys = self._keys[oldest.digest]
            keys.discard(oldest)
            if not keys:
                del self._keys[oldest.digest]

    def touch(self, digest: Digest) -> None:
        self._touched[digest] = self._clock.time()
        if len(self._touched) >= MAX_TOUCHED and self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_quietly())

    async def flush(self) -> None:
        """Write the use times noted so far. Raises Unavailable."""
        touched, self._touched = self._touched, {}
        rows = [(used, str(digest)) for digest, used in touched.items()]
        if rows:
            await self._writes.write(
                lambda database: database.executemany(
                    "UPDATE object SET used = MAX(used, ?) WHERE digest = ?", rows
                )
            )

    async def notice(self, objects: Iterable[tuple[Digest, int]]) -> None:
        """Take objects that were found in the store into the order, as used just now if new."""
        now = self._clock.time()
        rows = [(str(digest), size, now) for digest, size in objects]
        await self._writes.write(
            lambda database: database.executemany(
                "INSERT OR IGNORE INTO object VALUES (?, ?, ?)", rows
            )
        )

    async def forget(self, digests: Collection[Digest]) -> None:
        """The objects are gone, and with them what was known of them."""
        rows = [(str(digest),) for digest in digests]

        def write(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM object WHERE digest = ?", rows)
            database.executemany("DELETE FROM possession WHERE digest = ?", rows)

        for digest in digests:
            for key in self._keys.pop(digest, ()):
                del self._known[key]
        if rows:
            await self._writes.write(write)

    async def least_recently_used(self, limit: int, after: Place | None = None) -> list[Place]:
        """Objects behind `after`, the longest unused first. Raises Unavailable."""
        start = (-1.0, "") if after is None else (after.used, str(after.digest))
        query = (
            "SELECT digest, size, used FROM object WHERE (used, digest) > (?, ?)"
            " ORDER BY used, digest LIMIT ?"
        )
        rows: list[tuple[str, int, float]] = await self._reads.run(
            lambda database: database.execute(query, (*start, limit)).fetchall()
        )
        try:
            return [Place(Digest.parse(text), int(size), float(used)) for text, size, used in rows]
        except (Invalid, TypeError, ValueError) as error:
            raise self._damaged() from error

    async def totals(self) -> tuple[int, int]:
        """How many objects there are, and their bytes. Raises Unavailable."""
        row = await self._one("SELECT objects, bytes FROM total", ())
        try:
            return (0, 0) if row is None else (int(row[0]), int(row[1]))
        except (TypeError, ValueError) as error:
            raise self._damaged() from error

    async def renew(self) -> bool:
        """See to it that the file is of use, and the one that all processes share; whether it had to
        be taken up anew, and so knows little. Raises Unavailable.
        """
        return await self._file.renew()

    async def close(self) -> None:
        """Write what is left, and close."""
        if self._flushing is not None:
            await self._flushing
        if self._adding is not None:
            await asyncio.wait([self._adding])
        with contextlib.suppress(Unavailable):
            await self.flush()
        await asyncio.to_thread(self._file.close)

    async def _write_added(self) -> None:
        """Commit until nothing is left; while one batch is written, the next gathers."""
        loop = asyncio.get_running_loop()
        try:
            while self._added:
                if loop.time() < self._rested_at:
                    rested = asyncio.Event()
                    loop.call_at(self._rested_at, rested.set)
                    await rested.wait()
                added, self._added = self._added, []
                await self._write_batch(added)
                self._rested_at = loop.time() + self._commit_seconds
        finally:
            self._adding = None

    async def _write_batch(self, added: list[_Waiting]) -> None:
        rows = [row for row, _ in added]

        def write(database: sqlite3.Connection) -> None:
            database.executemany(
                "INSERT OR REPLACE INTO possession (digest, connection, repository, host)"
                " VALUES (?1, ?2, ?3, ?4)",
                [row[:4] for row in rows],
            )
            database.executemany(
                "INSERT INTO object (digest, size, used) VALUES (?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET size = excluded.size, used = excluded.used",
                [(row.digest, row.size, row.used) for row in rows],
            )

        failure: Exception | None = Unavailable("The index is being closed.")
        try:
            await self._writes.write(write)
            failure = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it reaches who waits
            failure = error
        finally:
            for _, written in added:
                if written.done():
                    continue
                if failure is None:
                    written.set_result(None)
                else:
                    written.set_exception(failure)

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except Unavailable as error:
            log.warning("use_times_lost", error=error.message)
        finally:
            self._flushing = None

    async def _one(self, query: str, values: tuple[str, ...]) -> tuple[int, ...] | None:
        def read(database: sqlite3.Connection) -> tuple[int, ...] | None:
            row: tuple[int, ...] | None = database.execute(query, values).fetchone()
            return row

        return await self._reads.run(read)

    def _damaged(self) -> Unavailable:
        """SQLite gives what it finds, of whatever type: what was written into the file may be anything."""
        self._reads.damaged = True
        return Unavailable(
            "The cache's index is damaged: it is made anew within seconds.", reason=Reason.INTERNAL
        )
