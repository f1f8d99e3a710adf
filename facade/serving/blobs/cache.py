"""Content by (connection, repository, digest): from the store if that repository proved to have
it, from a transfer that is under way, or from a new one.

Guarantees: a stored object is served for a repository only after its bytes came, whole and
verified, from that repository, or, when they came from the same registry, after that registry
confirmed by HEAD, with the size, that the repository has it (trust.md, "Possession"). A stored
block that does not match cuts the answer and quarantines the object; the next request fetches
it. Does not decide who may ask.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

import structlog

from facade.clock import Clock
from facade.errors import Integrity, Unavailable
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.serving.blobs.flight import Flights
from facade.serving.blobs.held import keep, open_held, open_hot, read_held
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.observer import BlobObserver, NullObserver
from facade.serving.blobs.port import (
    BlobKey,
    BlobReader,
    BlobSource,
    BlobStream,
    HotPossession,
    HotStore,
)
from facade.serving.blobs.sharing import Tails
from facade.serving.blobs.streams import StoredStream, TransferStream
from facade.upstream.connection import Connection

log = structlog.get_logger(__name__)


class BlobCache:
    """The use of store, transfers and possession in one.

    Arguments:
        store, possession: where content is, and whose it was seen to be.
        clock, executor, limits: for transfers; the executor's threads hash and write.
        observer: told how requests were met, of transfers, and of bytes that did not match.
        grown: told when an object came into the store, so that room can be made.
        tails: where the transfers of other processes on the same store are found, if there are any.
    """

    def __init__(
        self,
        *,
        store: HotStore,
        possession: HotPossession,
        clock: Clock,
        executor: Executor,
        limits: TransferLimits | None = None,
        observer: BlobObserver | None = None,
        grown: Callable[[], None] | None = None,
        tails: Tails | None = None,
    ) -> None:
        self._store = store
        self._possession = possession
        self._executor = executor
        self._observer = observer or NullObserver()
        self._grown = grown
        self._confirming: dict[tuple[BlobKey, int], asyncio.Task[bool]] = {}
        self.flights = Flights(
            store=store,
            tails=tails,
            possession=possession,
            clock=clock,
            executor=executor,
            observer=self._observer,
            published=self._published,
            limits=limits,
        )

    async def get(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
    ) -> BlobStream:
        """A stream of the content, whose `outcome` tells where it comes from.

        Arguments:
            size: bytes, as signed or as the verified descriptor says.
            source: asked only when the store may not answer.

        Raises Integrity (another size than signed; or it failed a moment ago), Upstream, Denied.
        """
        key = BlobKey(connection.id, connection.host, repository, digest)
        host = str(connection.host)
        reader, seen = await self._hit(key, size, source)
        if reader is not None:
            self._observer.hit(host)
            return StoredStream(reader, lambda error: self._quarantine(key, error))
        stream = await self._stream(key, size, source, seen=seen)
        told = self._observer
        {"hit": told.hit, "join": told.joined, "miss": told.missed}[stream.outcome](host)
        return stream

    def hot(
        self, connection: Connection, repository: Repository, digest: Digest, size: int
    ) -> BlobStream | None:
        """What `get` would give, if nothing has to be waited for until its first bytes, which are right."""
        key = BlobKey(connection.id, connection.host, repository, digest)
        if self.flights.is_running(key, size):
            return None
        stream = open_hot(
            self._store, self._possession, key, size, lambda error: self._quarantine(key, error)
        )
        if stream is not None:
            self._observer.hit(str(connection.host))
        return stream

    async def read(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
    ) -> bytes:
        """The content, verified whole. For manifests: the caller bounds `size`. Raises like `get`
        and like the stream.
        """
        stream = await self.get(connection, repository, digest, size, source)
        try:
            return b"".join([bytes(view) async for view in stream.chunks()])
        finally:
            await stream.aclose()

    async def put(
        self, connection: Connection, repository: Repository, digest: Digest, data: bytes
    ) -> bool:
        """Keep content that is at hand and came from that repository, like an imported manifest.

        Returns whether it is kept: a store that cannot take it is no error. Raises Integrity
        when `data` is not the digest's.
        """
        if not digest.matches(data):
            raise Integrity("The content does not match its digest.")
        key = BlobKey(connection.id, connection.host, repository, digest)
        try:
            await keep(self._store, key, data, self._executor)
            await self._published(key, len(data))
        except Unavailable as error:
            log.warning("put_failed", digest=str(digest), error=error.message)
            return False
        return True

    async def fetch(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
    ) -> bool:
        """Bring it into the store without reading it; returns whether it is there.

        Raises like `get` and like the stream.
        """
        key = BlobKey(connection.id, connection.host, repository, digest)
        reader, seen = await self._hit(key, size, source)
        if reader is None:
            stream = await self._stream(key, size, source, seen=seen)
            try:
                await stream.finished()
            finally:
                await stream.aclose()
            reader = await self._store.open(digest)
        if reader is not None:
            reader.close()
        return reader is not None

    async def holds(self, connection: Connection, repository: Repository, digest: Digest) -> bool:
        """Whether it is in the store and that repository proved to have it. Asks nobody upstream."""
        key = BlobKey(connection.id, connection.host, repository, digest)
        reader = await open_held(self._store, self._possession, key)
        if reader is not None:
            reader.close()
        return reader is not None

    async def held(
        self, connection: Connection, repository: Repository, digest: Digest, limit: int
    ) -> bytes | None:
        """All of it, if `holds` and it has at most `limit` bytes. Raises Integrity when spoiled."""
        key = BlobKey(connection.id, connection.host, repository, digest)
        return await read_held(
            self._store, self._possession, key, limit, lambda error: self._quarantine(key, error)
        )

    async def close(self) -> None:
        """Stop all transfers, keeping what came."""
        await self.flights.close()
        for task in list(self._confirming.values()):
            task.cancel()

    async def _stream(
        self, key: BlobKey, size: int, source: BlobSource, *, seen: bool
    ) -> TransferStream:
        """Join or start; an object that was not `seen` is looked for again before it is fetched."""

        async def stored() -> BlobReader | None:
            return (await self._hit(key, size, source, running=True))[0]

        return await self.flights.stream(key, size, source, None if seen else stored)

    async def _hit(
        self, key: BlobKey, size: int, source: BlobSource, *, running: bool = False
    ) -> tuple[BlobReader | None, bool]:
        """The stored object, open, if this repository may have it; and whether there is one.

        Arguments:
            running: do not prefer a transfer that is under way: it is the one that asks.
        """
        if not running and self.flights.is_running(key, size):
            return None, False
        reader = await self._store.open(key.digest)
        if reader is None:
            return None, False
        try:
            allowed = await self._may_have(key, size, reader.origin, source)
            # Only after that: who may not have it is not told its size either.
            if allowed and reader.size != size:
                raise Integrity(f"The content has {reader.size} bytes; {size} were announced.")
        except BaseException:
            reader.close()
            raise
        if not allowed:
            reader.close()
            return None, True
        self._possession.touch(key.digest)
        return reader, True

    async def _may_have(self, key: BlobKey, size: int, origin: str, source: BlobSource) -> bool:
        try:
            if await self._possession.has(key):
                return True
            same_registry = origin == str(key.host) or await self._possession.at_registry(
                key.host, key.digest
            )
        except Unavailable as error:
            log.warning("possession_unknown", error=error.message)
            same_registry = origin == str(key.host)  # the content itself says so
        return same_registry and await self._confirmed(key, size, source)

    async def _confirmed(self, key: BlobKey, size: int, source: BlobSource) -> bool:
        """Ask the registry, once for all who wait. Raises Upstream, Denied."""
        task = self._confirming.get((key, size))
        if task is None:
            task = asyncio.create_task(self._confirm(key, size, source))
            self._confirming[key, size] = task
            task.add_done_callback(lambda task: self._confirm_done(key, size, task))
        return await asyncio.shield(task)

    async def _confirm(self, key: BlobKey, size: int, source: BlobSource) -> bool:
        if await source.confirm() != size:
            return False
        try:
            await self._possession.add(key, size)
        except Unavailable as error:
            # The registry has just confirmed it; later processes ask again.
            log.warning("possession_not_recorded", error=error.message)
            self._possession.proven(key)
        return True

    def _confirm_done(self, key: BlobKey, size: int, task: "asyncio.Task[bool]") -> None:
        del self._confirming[key, size]
        if not task.cancelled():
            task.exception()  # waiters raise it; none may be left

    async def _published(self, key: BlobKey, size: int) -> None:
        await self._possession.add(key, size)
        if self._grown is not None:
            self._grown()

    async def _quarantine(self, key: BlobKey, error: Integrity) -> None:
        host, repository, digest = str(key.host), str(key.repository), str(key.digest)
        log.error(
            "cached_object_spoiled",
            host=host,
            repository=repository,
            digest=digest,
            detail=error.message,
        )
        self._observer.integrity_failed(host, repository, digest, error.message)
        await self._store.quarantine(key.digest)
