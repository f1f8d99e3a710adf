"""Content by (connection, repository, digest): from the store if that repository proved to have
it, from a transfer that is under way, or from a new one.

Guarantees: a stored object is served for a repository only after its bytes came, whole and
verified, from that repository, or, when they came from the same registry, after that registry
confirmed by HEAD, with the size, that the repository has it (trust.md, "Possession"). A stored
block that does not match cuts the answer and quarantines the object; the next request fetches
it. Does not decide who may ask.
"""

import asyncio
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
    Found,
    HotPossession,
    HotStore,
)
from facade.serving.blobs.proofs import Proofs
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
        tails: Tails | None = None,
    ) -> None:
        self._store = store
        self._possession = possession
        self._executor = executor
        self._observer = observer or NullObserver()
        self._looking: dict[tuple[BlobKey, int], asyncio.Event] = {}
        self._proofs = Proofs(possession)
        self.flights = Flights(
            store=store,
            tails=tails,
            possession=possession,
            clock=clock,
            executor=executor,
            observer=self._observer,
            published=possession.add,
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
        found = await self._find(key, size)
        reader = await self._entitled(key, size, source, found.reader)
        if reader is not None:
            self._observer.hit(host)
            return StoredStream(reader, lambda error: self._quarantine(key, error))
        stream = await self._stream(key, size, source, found)
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
            await self._possession.add(key, len(data))
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
        found = await self._find(key, size)
        reader = await self._entitled(key, size, source, found.reader)
        if reader is None:
            stream = await self._stream(key, size, source, found)
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
        self._proofs.close()

    async def _stream(
        self, key: BlobKey, size: int, source: BlobSource, found: Found
    ) -> TransferStream:
        """Join or start; an object that was not found is looked for again before it is fetched."""

        async def stored() -> BlobReader | None:
            return await self._entitled(key, size, source, await self._store.open(key.digest))

        again = stored if found.reader is None else None
        return await self.flights.stream(key, size, source, again, found.begun)

    async def _find(self, key: BlobKey, size: int) -> Found:
        """The object, or the beginning of a transfer of it; neither when one is under way."""
        while (looked := self._looking.get((key, size))) is not None:
            await looked.wait()  # who looks begins that transfer, in the step in which it is told
        if self.flights.is_running(key, size):
            return Found()
        if self.flights.is_there(key, size):
            return Found(reader=await self._store.open(key.digest))
        looked = self._looking[key, size] = asyncio.Event()
        try:
            return await self._store.find(key, size)
        finally:
            del self._looking[key, size]
            looked.set()

    async def _entitled(
        self, key: BlobKey, size: int, source: BlobSource, reader: BlobReader | None
    ) -> BlobReader | None:
        """`reader`, of a stored object, if this repository may have it; closed otherwise."""
        if reader is None:
            return None
        try:
            allowed = await self._proofs.may_have(key, size, reader.origin, source)
            # Only after that: who may not have it is not told its size either.
            if allowed and reader.size != size:
                raise Integrity(f"The content has {reader.size} bytes; {size} were announced.")
        except BaseException:
            reader.close()
            raise
        if not allowed:
            reader.close()
            return None
        self._possession.touch(key.digest)
        return reader

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
