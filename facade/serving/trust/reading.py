"""Getting manifests for the walk, and turning their bytes into edges.

Guarantees: only bytes whose digest was checked here become edges; what was read once is not read
again (edges are a function of the bytes alone, so they outlive views and serve all fleets), within
bounds on readings and on their edges. Large ones are read in a thread. A manifest that cannot be had leaves a hole in the walk, one that may not be served spoils its edge.
Does not decide anything, and does not retry: the source does.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from facade.clock import Clock
from facade.errors import FacadeError, Invalid, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.platform import Platform
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.serving.trust.closure import edges, verified_manifest
from facade.serving.trust.parsing import parsed
from facade.serving.trust.walk import Node, Reading, Walk

log = structlog.get_logger(__name__)

MAX_READINGS = 4096
MAX_EDGES = 200_000
"""Of all remembered readings together: some 100 MB at most."""

Kept = Callable[[RegistryHost, Repository, Digest], Awaitable[bytes | None]]
"""A manifest that is at hand without any upstream traffic, or None."""


class ManifestSource(Protocol):
    """Where the walk gets manifests: own store, control port, then the upstream."""

    async def manifest(
        self, host: RegistryHost, repository: Repository, digest: Digest, size: int, /
    ) -> bytes:
        """The manifest's bytes, their digest checked; at most 4 MiB.

        Arguments:
            size: what a descriptor states, in bytes.

        Raises any FacadeError when it cannot be had.
        """
        ...


class Reader:
    """Reads manifests into walks.

    Arguments:
        manifests: the source of last resort; what it gives counts as fetched.
        kept: asked first, uncounted; None = every manifest is counted.
        max_edges: of all readings that are remembered.
    """

    def __init__(
        self,
        manifests: ManifestSource,
        kept: Kept | None,
        clock: Clock,
        *,
        max_edges: int = MAX_EDGES,
    ) -> None:
        self._manifests = manifests
        self._kept = kept
        self._clock = clock
        self._readings: dict[tuple[Digest, str, tuple[Platform, ...]], Reading] = {}
        self._edges = 0
        self._max_edges = max_edges

    async def read(self, walk: Walk, node: Node, host: RegistryHost, repository: Repository) -> int:
        """Read one manifest into the walk. Gives how many fetches it took."""
        reading = self._readings.get((node.digest, node.media_type, node.platforms))
        if reading is not None:
            await _expand(walk, node, reading)
            return 0
        try:
            data, fetched = await self.load(host, repository, node.digest, node.size)
        except FacadeError as error:
            log.info("closure_hole", digest=str(node.digest), reason=error.reason)
            walk.hole(node, self._clock.monotonic())
            return 1
        try:
            reading = await parsed(data, lambda: _read(node, data))
        except FacadeError as error:
            self._refuse(walk, node, error)
        else:
            self._remember(node, reading)
            await _expand(walk, node, reading)
        return fetched

    async def load(
        self, host: RegistryHost, repository: Repository, digest: Digest, size: int | None
    ) -> tuple[bytes, int]:
        """The bytes, and how many fetches it took. Raises any FacadeError.

        Without a size (a signed referrer) only what is kept will do: no registry is asked for
        something of unknown length.
        """
        if self._kept is not None:
            try:
                data = await self._kept(host, repository, digest)
            except FacadeError as error:
                log.info("closure_kept_unavailable", reason=error.reason)
            else:
                if data is not None and digest.matches(data):
                    return data, 0
        if size is None:
            raise Unavailable(
                f"The signed referrer {digest} is not at hand.", reason=Reason.CLOSURE_INCOMPLETE
            )
        return await self._manifests.manifest(host, repository, digest, size), 1

    def absorb(self, walk: Walk, node: Node, data: bytes) -> None:
        """Take the manifest's bytes into the walk, if they are what they should be.

        Reads them here and now: for what `parsing.is_small`.
        """
        try:
            reading = _read(node, data)
        except FacadeError as error:
            self._refuse(walk, node, error)
        else:
            self._remember(node, reading)
            walk.expand(node, reading)

    def _refuse(self, walk: Walk, node: Node, error: FacadeError) -> None:
        if isinstance(error, Invalid):
            log.warning("closure_edge_refused", digest=str(node.digest), error=error.message)
            walk.spoil(node)
        else:
            walk.hole(node, self._clock.monotonic())

    def _remember(self, node: Node, reading: Reading) -> None:
        key = (node.digest, node.media_type, node.platforms)
        former = self._readings.pop(key, None)
        self._edges += len(reading.edges) - (len(former.edges) if former else 0)
        self._readings[key] = reading
        while len(self._readings) > MAX_READINGS or self._edges > self._max_edges:
            dropped = self._readings.pop(next(iter(self._readings)))
            self._edges -= len(dropped.edges)


async def _expand(walk: Walk, node: Node, reading: Reading) -> None:
    for _ in walk.expanding(node, reading):
        await asyncio.sleep(0)  # others' requests come first


def _read(node: Node, data: bytes) -> Reading:
    """Raises Integrity, Invalid."""
    manifest = verified_manifest(data, node.digest, node.size, node.media_type)
    return Reading(len(data), manifest.media_type, edges(node.digest, manifest, node.platforms))
