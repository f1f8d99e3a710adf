"""The signed artifacts: listed, shown, verified, withdrawn.

Guarantees: what is listed is what the signed metadata says; who imported it and when, and how often
it was pulled, is added from our records and may be missing. A withdrawn artifact is out of the
metadata when `withdraw` returns; devices lose it when the serving side has the new metadata.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from facade.control.catalog.closure import Problem, Wanted, platforms_of
from facade.control.catalog.history import ImportRecord, Records
from facade.control.catalog.ordering import sort_key
from facade.control.catalog.ports import (
    ConnectionLookup,
    Fetched,
    ManifestStore,
    Publisher,
    Registry,
)
from facade.control.catalog.walk import PARALLEL, Walk
from facade.errors import Integrity, Invalid, NotFound, Upstream
from facade.oci.digest import Digest
from facade.oci.manifest import Index, parse_manifest
from facade.oci.platform import Platform
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.target import SignedTarget
from facade.upstream.connection import Connection
from facade.wings import CachePort


class PullCount(Protocol):
    """How often a digest was pulled, and when last (Unix seconds)."""

    @property
    def count(self) -> int: ...
    @property
    def last(self) -> float | None: ...


class Pulls(Protocol):
    """`control.pulls.PullRecords`."""

    async def count(self, fleet: str, digest: Digest) -> PullCount: ...


@dataclass(frozen=True, slots=True)
class ArtifactRecord:
    """A signed artifact and what is remembered of it. Times are Unix seconds.

    Arguments:
        bytes: of its whole closure.
        platforms: what devices are served of it; empty = not looked up (lists), or none by name.
        pulled, last_pulled: by devices of its fleet; None = not counted here (lists).
    """

    target: SignedTarget
    imported_by: str | None = None
    imported_at: float | None = None
    bytes: int | None = None
    pulled: int | None = None
    last_pulled: float | None = None
    platforms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """What a second walk found.

    Arguments:
        checked: manifests and blobs that were looked at; `blobs` of them are blobs.
        cached: how many of the blobs are in the cache; None = there is no cache to ask.
        problems: (digest, sentence).
    """

    checked: int
    blobs: int
    problems: Sequence[Problem] = ()
    cached: int | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """A manifest from our own store, as if it had been fetched."""

    data: bytes
    digest: Digest
    media_type: str = ""


class Artifacts:
    """See the module.

    Arguments:
        cache: asked what it holds; None = there is none.
    """

    def __init__(
        self,
        *,
        connections: ConnectionLookup,
        registry: Registry,
        publisher: Publisher,
        manifests: ManifestStore,
        records: Records,
        pulls: Pulls,
        cache: CachePort | None = None,
    ) -> None:
        self._connections = connections
        self._registry = registry
        self._publisher = publisher
        self._manifests = manifests
        self._records = records
        self._pulls = pulls
        self._cache = cache

    async def list(
        self,
        *,
        fleets: frozenset[str] | None = None,
        name: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[ArtifactRecord], int]:
        """A page by fleet and name, newest-likely version first, and how many there are in all.

        Arguments:
            fleets: only these; None = all. One that does not exist has no artifacts.

        Raises Integrity, Unavailable.
        """
        targets = await asyncio.to_thread(self._targets, fleets, name)
        page = targets[offset : offset + limit]
        paths = [(target.fleet, target.name, target.version) for target in page]
        known = await self._records.by_path(paths)
        return tuple(_record(target, known.get(target.path)) for target in page), len(targets)

    def _targets(self, fleets: frozenset[str] | None, name: str | None) -> Sequence[SignedTarget]:
        found = [
            target
            for fleet in self._publisher.fleets()
            if fleets is None or fleet in fleets
            for target in self._publisher.targets(fleet).values()
            if name is None or target.name == name
        ]
        found.sort(key=lambda target: (target.fleet, target.name, sort_key(target.version)))
        return found

    async def get(self, fleet: str, name: str, version: str) -> ArtifactRecord:
        """One artifact, with its pulls counted. Raises NotFound, Unavailable."""
        target = await self._target(fleet, name, version)
        known = await self._records.by_path([(fleet, name, version)])
        pulls = await self._pulls.count(fleet, target.digest)
        record = _record(target, known.get(target.path), pulls)
        return replace(record, platforms=target.platforms or await self._platforms(target))

    async def _platforms(self, target: SignedTarget) -> tuple[str, ...]:
        """Those that its index names, from the manifest that import kept."""
        data = await self._manifests.get(target.registry, target.repository, target.digest)
        if data is None:
            return ()
        manifest = parse_manifest(data, target.media_type)
        return platforms_of(manifest) if isinstance(manifest, Index) else ()

    async def verify(self, fleet: str, name: str, version: str) -> Verification:
        """Walk it again upstream: is all of it still there, and does it still match?

        Manifests that we keep are made whole again from what was fetched.

        Raises NotFound; Upstream when the registry cannot be asked.
        """
        target = await self._target(fleet, name, version)
        connection = self._connections.get(target.registry).connection
        gate, seen = asyncio.Semaphore(PARALLEL), dict[Digest, int]()
        checked, problems, blobs = 0, list[Problem](), dict[Digest, int]()
        for digest in (target.digest, *target.referrers):
            walk = Walk(
                *(self._registry, connection, target.repository, gate), collect=True, checked=seen
            )
            try:
                closure = await walk.run(digest, _wanted(target, digest, blobs=True))
            except (Upstream, Integrity, Invalid) as error:
                if isinstance(error, Upstream) and error.reason is not Reason.UPSTREAM_NOT_FOUND:
                    raise
                checked += 1
                problems.append((str(digest), error.message))
                continue
            await self._manifests.keep(target.registry, target.repository, closure.manifests)
            checked += len(closure.manifests)
            blobs |= closure.blobs
            problems += closure.problems
        cached = await self._cached(connection, target.repository, blobs)
        return Verification(checked + len(blobs), len(blobs), tuple(problems), cached)

    async def _cached(
        self, connection: Connection, repository: Repository, blobs: Mapping[Digest, int]
    ) -> int | None:
        """How many of them are in the cache."""
        if self._cache is None:
            return None
        held = [
            await self._cache.warm(connection, repository, digest, size, fetch=False)
            for digest, size in blobs.items()
        ]
        return sum(result.cached for result in held)

    async def withdraw(self, fleet: str, name: str, version: str, *, actor: str) -> None:
        """Take it out of the signed metadata. Raises NotFound, Conflict, Unavailable."""
        target = await self._target(fleet, name, version)
        await asyncio.to_thread(self._publisher.publish, fleet, remove=[target.path])
        await self._records.withdrawn((fleet, name, version), actor=actor)

    async def blobs(
        self, fleet: str, name: str, version: str
    ) -> tuple[Connection, Repository, Sequence[tuple[Digest, int]]]:
        """Where its blobs are and which, for warming; from kept manifests where we have them.

        Raises NotFound, Upstream.
        """
        target = await self._target(fleet, name, version)
        connection = self._connections.get(target.registry).connection

        async def load(reference: Digest | Tag) -> Fetched:
            assert isinstance(reference, Digest), "a signed target names digests only"
            data = await self._manifests.get(target.registry, target.repository, reference)
            if data is not None:
                return _Kept(data, reference)
            return await self._registry.manifest(connection, target.repository, reference)

        gate, blobs = asyncio.Semaphore(PARALLEL), dict[Digest, int]()
        for digest in (target.digest, *target.referrers):
            walk = Walk(self._registry, connection, target.repository, gate, load=load)
            blobs |= (await walk.run(digest, _wanted(target, digest, blobs=False))).blobs
        return connection, target.repository, tuple(blobs.items())

    async def _target(self, fleet: str, name: str, version: str) -> SignedTarget:
        path = f"{fleet}/{name}/{version}"
        if fleet not in await asyncio.to_thread(self._publisher.fleets):
            raise NotFound(f"There is no fleet {fleet}. See: facade fleet list")
        target = (await asyncio.to_thread(self._publisher.targets, fleet)).get(path)
        if target is None:
            raise NotFound(f"There is no artifact {path}. See: facade artifact list")
        return target


def _wanted(target: SignedTarget, digest: Digest, *, blobs: bool) -> Wanted:
    """The target's platforms choose among its own children, not among a referrer's."""
    platforms = target.platforms if digest == target.digest else ()
    return Wanted(platforms=tuple(map(Platform.parse, platforms)), blobs=blobs)


def _record(
    target: SignedTarget, known: ImportRecord | None, pulls: PullCount | None = None
) -> ArtifactRecord:
    return ArtifactRecord(
        target=target,
        imported_by=known.imported_by if known else None,
        imported_at=known.imported_at if known else None,
        bytes=known.bytes if known else None,
        pulled=pulls.count if pulls else None,
        last_pulled=pulls.last if pulls else None,
    )
