"""Manifests by digest: from memory, the cache, the control wing's copy, or last the registry.

Guarantees: the bytes given match the digest, whoever had them; one search at a time per manifest,
as a task of its own, so a waiter that leaves disturbs nobody; memory is bounded. What was found
for one repository is never given to another. The cache keeps what the control wing gave (trust.md,
"Import"), so that with the control side away each process of the node serves what one of them has.
Does not decide who may have them, nor whether the size that a descriptor states is the right one
(`trust.closure.servable` does).
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

import structlog

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.serving.pulls.ports import Blobs
from facade.serving.pulls.reports import Reports
from facade.serving.pulls.sources import Asker, Sources, not_connected
from facade.target import MAX_MANIFEST_BYTES
from facade.upstream.connection import Connection
from facade.wings import ControlPort

log = structlog.get_logger(__name__)

MEMORY_BYTES = 32 * 1024 * 1024
"""Manifests kept in memory; a large fleet uses some hundreds of a few KiB each."""


@dataclass(frozen=True, slots=True)
class ManifestKey:
    """A manifest in its place."""

    host: RegistryHost
    repository: Repository
    digest: Digest


class Manifests:
    """Implements `serving.trust`'s ManifestSource.

    Arguments:
        max_bytes: how much is kept in memory.
    """

    def __init__(
        self,
        *,
        control: ControlPort,
        blobs: Blobs,
        sources: Sources,
        reports: Reports,
        max_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._control = control
        self._blobs = blobs
        self._sources = sources
        self._reports = reports
        self._max_bytes = max_bytes
        self._memory: OrderedDict[ManifestKey, bytes] = OrderedDict()
        self._bytes = 0
        self._searches: dict[tuple[ManifestKey, int], asyncio.Task[bytes]] = {}
        self._keeping: dict[ManifestKey, asyncio.Task[bool]] = {}

    def hot(self, host: RegistryHost, repository: Repository, digest: Digest) -> bytes | None:
        """The manifest, if it is in memory; verified."""
        key = ManifestKey(host, repository, digest)
        data = self._memory.get(key)
        if data is not None:
            self._memory.move_to_end(key)
        return data

    async def kept(
        self, host: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        """The manifest, if it is at hand without upstream traffic; verified."""
        data = self.hot(host, repository, digest)
        if data is not None:
            return data
        key = ManifestKey(host, repository, digest)
        data = await self._at_hand(key)
        if data is not None:
            self._remember(key, data)
        return data

    async def manifest(
        self,
        host: RegistryHost,
        repository: Repository,
        digest: Digest,
        size: int,
        /,
        *,
        asker: Asker = None,
    ) -> bytes:
        """The manifest's bytes, verified.

        Arguments:
            size: what a descriptor states; asked for in vain when it is wrong.
            asker: whose turn at the registry it takes; None = the facade's own, as in a walk,
                which is done once for a whole fleet.

        Raises Integrity when a registry's copy does not match, Upstream or Unavailable when it
        cannot be had, Denied (HOST_NOT_CONNECTED) when only an unconnected registry could have it.
        """
        data = self.hot(host, repository, digest)
        if data is not None:
            return data
        key = ManifestKey(host, repository, digest)
        if size > MAX_MANIFEST_BYTES:
            raise Integrity(f"{size} bytes is no manifest's size.")
        search = self._searches.get(
            (key, size)
        )  # a wrong size must not fail those with a right one
        if search is None:
            search = asyncio.create_task(self._search(key, size, asker))
            self._searches[key, size] = search
            search.add_done_callback(lambda done: self._searched(key, size, done))
        else:
            connection = self._control.snapshot().connections.get(host)
            if connection is not None:
                self._sources.wanted(connection, repository, digest, asker)
        return await asyncio.shield(search)

    async def close(self) -> None:
        """Stop what is being searched for; what is being kept is kept."""
        searches = list(self._searches.values())
        for search in searches:
            search.cancel()
        await asyncio.gather(*searches, *self._keeping.values(), return_exceptions=True)

    def _searched(self, key: ManifestKey, size: int, search: asyncio.Task[bytes]) -> None:
        del self._searches[key, size]
        # Asking for the exception marks it as seen, when every waiter has left.
        if not search.cancelled() and search.exception() is None:
            self._remember(key, search.result())

    def _remember(self, key: ManifestKey, data: bytes) -> None:
        self._bytes += len(data) - len(self._memory.pop(key, b""))
        self._memory[key] = data
        while self._bytes > self._max_bytes:
            _, dropped = self._memory.popitem(last=False)
            self._bytes -= len(dropped)

    async def _at_hand(self, key: ManifestKey) -> bytes | None:
        """The manifest, if it can be had without the registry. Raises Unavailable."""
        connection = self._control.snapshot().connections.get(key.host)
        if connection is None:
            return await self._copy(key)
        data = await self._held(connection, key)
        if data is None:
            data = await self._copy(key)
            if data is not None:
                self._keep(connection, key, data)
        return data

    async def _held(self, connection: Connection, key: ManifestKey) -> bytes | None:
        """What the cache has."""
        try:
            data = await self._blobs.held(
                connection, key.repository, key.digest, MAX_MANIFEST_BYTES
            )
        except Integrity:
            return None  # set aside and reported by the cache; the control wing's copy is as good
        return self._checked(key, data, "The cache's copy does not match its digest.")

    def _keep(self, connection: Connection, key: ManifestKey, data: bytes) -> None:
        """In the background: who asked needs not wait for the disk."""
        if key not in self._keeping:
            put = self._blobs.put(connection, key.repository, key.digest, data)
            self._keeping[key] = task = asyncio.ensure_future(put)
            task.add_done_callback(lambda done: self._was_kept(key, done))

    def _was_kept(self, key: ManifestKey, done: asyncio.Task[bool]) -> None:
        del self._keeping[key]
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("manifest_not_kept", digest=str(key.digest), exc_info=error)

    async def _copy(self, key: ManifestKey) -> bytes | None:
        """The control wing's copy, if it has the right one."""
        data = await self._control.closure_manifest(key.host, key.repository, key.digest)
        return self._checked(key, data, "The copy kept at import does not match its digest.")

    def _checked(self, key: ManifestKey, data: bytes | None, detail: str) -> bytes | None:
        """The copy; a wrong one is loud, never served, and looked for elsewhere as if it were none."""
        if data is None or key.digest.matches(data):
            return data
        host, repository, digest = str(key.host), str(key.repository), str(key.digest)
        log.error(
            "integrity_failed", host=host, repository=repository, digest=digest, detail=detail
        )
        self._reports.integrity_failed(host, repository, digest, detail)
        return None

    async def _search(self, key: ManifestKey, size: int, asker: Asker) -> bytes:
        data = await self._at_hand(key)
        if data is not None:
            return data
        connection = self._control.snapshot().connections.get(key.host)
        if connection is None:
            raise not_connected(key.host)
        return await self._through_the_cache(connection, key, size, asker)

    async def _through_the_cache(
        self, connection: Connection, key: ManifestKey, size: int, asker: Asker
    ) -> bytes:
        """Content like any other: possession, one transfer, the verdict and the disk are there."""
        source = self._sources.manifest(connection, key.repository, key.digest, asker)
        stream = await self._blobs.get(connection, key.repository, key.digest, size, source)
        try:
            data = b"".join([bytes(chunk) async for chunk in stream.chunks()])
        finally:
            await stream.aclose()
        if not key.digest.matches(data):
            raise Integrity(f"The manifest {key.digest} does not match its digest.")
        return data
