"""Forgets kept manifests that no signed artifact needs any more.

Guarantees: what a signed artifact of any fleet reaches stays, and so does what was kept within the last
`GRACE_SECONDS`, because an import keeps first and signs afterwards. Where it cannot be told what is reached (a
row is damaged or cannot be read), nothing of that repository is forgotten. Loses nothing for good: the next
import keeps its manifests again. Does not touch the cache of the serving side.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Protocol

import structlog

from facade.clock import Clock
from facade.control.catalog.ports import Place
from facade.errors import FacadeError
from facade.oci.digest import Digest
from facade.oci.manifest import Index, is_manifest_type, parse_manifest
from facade.target import SignedTarget

log = structlog.get_logger(__name__)

EVERY_SECONDS = 24 * 3600.0
GRACE_SECONDS = 24 * 3600.0
"""Far longer than an import takes from keeping its first manifest to signing."""


class Signed(Protocol):
    """`control.signing.publisher.Publisher`. Synchronous: called in a thread."""

    def fleets(self) -> tuple[str, ...]: ...

    def targets(self, fleet: str) -> Mapping[str, SignedTarget]: ...


class Kept(Protocol):
    """`control.catalog.manifests.ClosureManifests`. Every method raises Unavailable."""

    async def places(self) -> Collection[Place]:
        """Where manifests were imported from."""
        ...

    async def some(self, place: Place, digests: Collection[Digest]) -> Mapping[Digest, bytes]:
        """Those of the manifests that are kept. Raises Integrity when one is damaged."""
        ...

    async def forget(self, place: Place, *, but: Collection[Digest], kept_before: float) -> int:
        """Delete the others, of those kept before that time (Unix seconds); how many."""
        ...


class ManifestCollection:
    """See the module."""

    def __init__(self, signed: Signed, kept: Kept, clock: Clock) -> None:
        self._signed = signed
        self._kept = kept
        self._clock = clock

    async def run(self) -> None:
        """For ever, once a day; a failure is logged and the next day tries again."""
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            try:
                count = await self.collect()
            except FacadeError as error:
                log.warning("manifests_not_collected", error=error.message)
            else:
                log.info("manifests_collected", count=count)

    async def collect(self) -> int:
        """Once; how many manifests were forgotten. Raises Integrity, Unavailable."""
        # Before anything is looked at: what an import keeps from here on is too young.
        kept_before = self._clock.time() - GRACE_SECONDS
        places = await self._kept.places()
        tops = await asyncio.to_thread(self._tops)
        count = 0
        for place in places:
            try:
                needed = await self._reached(place, tops.get(place, frozenset()))
            except FacadeError as error:
                registry, repository = map(str, place)
                words = {"registry": registry, "repository": repository, "error": error.message}
                log.warning("manifests_not_collected", **words)
                continue
            count += await self._kept.forget(place, but=needed, kept_before=kept_before)
        return count

    def _tops(self) -> Mapping[Place, Collection[Digest]]:
        """What the signed metadata names, by where it is from."""
        found: defaultdict[Place, set[Digest]] = defaultdict(set)
        for fleet in self._signed.fleets():
            for target in self._signed.targets(fleet).values():
                found[target.registry, target.repository].update((target.digest, *target.referrers))
        return found

    async def _reached(self, place: Place, tops: Collection[Digest]) -> Collection[Digest]:
        """Everything below `tops`. Raises Integrity, Invalid, Unavailable."""
        reached, edge = set[Digest](), set(tops)
        while edge:
            reached |= edge
            manifests = await self._kept.some(place, edge)
            edge = {child for data in manifests.values() for child in _children(data)} - reached
        return reached


def _children(data: bytes) -> Collection[Digest]:
    """The manifests that a manifest names, whatever the platform."""
    manifest = parse_manifest(data)
    if not isinstance(manifest, Index):
        return ()
    return [child.digest for child in manifest.manifests if is_manifest_type(child.media_type)]
