"""In-memory browse, imports, artifacts and fleets, for tests of the operator port and the CLI.

Guarantees: they keep what they are given and fail as they are told; nothing here checks anything that
the port must check.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from facade.control.api.services import ImportOrder, ProgressSink
from facade.errors import Conflict, NotFound
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.target import SignedTarget
from facade.upstream.connection import Connection

DIGEST = Digest.of(b"an image")


@dataclass(frozen=True)
class FoundTags:
    """A TagList."""

    tags: Sequence[str]
    clipped: bool = False
    pages: int = 1
    hidden: int = 0
    read: int = 2
    last: str | None = "v2"


@dataclass(frozen=True)
class FoundPlatform:
    """A PlatformSummary."""

    platform: str = "linux/arm64"
    digest: Digest = DIGEST
    size: int = 8
    total_bytes: int | None = 4096


@dataclass(frozen=True)
class FoundManifest:
    """A ManifestSummary."""

    digest: Digest = DIGEST
    media_type: str = "application/vnd.oci.image.index.v1+json"
    size: int = 8
    platforms: Sequence[FoundPlatform] = (FoundPlatform(),)
    total_bytes: int | None = None
    created: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeBrowse:
    """Answers with `tags`; remembers what was asked."""

    found: FoundTags = field(default_factory=lambda: FoundTags(("v2", "v1")))
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    async def tags(
        self, host: RegistryHost, repository: Repository, *, hidden: bool, match: str | None
    ) -> FoundTags:
        self.asked.append((str(host), str(repository), hidden, match))
        return self.found

    async def manifest(
        self, host: RegistryHost, repository: Repository, reference: Tag | Digest
    ) -> FoundManifest:
        self.asked.append((str(host), str(repository), str(reference)))
        return FoundManifest()


@dataclass(frozen=True)
class Outcome:
    """A TagOutcome."""

    reference: str
    status: str
    digest: Digest | None = None
    target: str | None = None
    error: str | None = None
    warmed: bool | None = None


@dataclass
class FakeImporter:
    """Imports every tag but those in `bad`.

    Arguments:
        failure: fails the order as a whole, before any progress unless `fail_late`.
        endless: tells progress until it is cancelled, and says so.
    """

    bad: frozenset[str] = frozenset()
    failure: Exception | None = None
    fail_late: bool = False
    endless: bool = False
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    orders: list[ImportOrder] = field(default_factory=list)

    async def run(
        self, order: ImportOrder, *, actor: str, progress: ProgressSink
    ) -> Sequence[Outcome]:
        self.orders.append(order)
        if self.failure is not None and not self.fail_late:
            raise self.failure
        while self.endless:
            progress({"tag": "v1", "step": "checking"})
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        outcomes = []
        for reference in map(str, order.references):
            failed = reference in self.bad
            progress({"tag": reference, "step": "resolve"})
            progress({"tag": reference, "status": "failed" if failed else "imported"})
            outcomes.append(
                Outcome(reference, "failed", error="It is not there.")
                if failed
                else Outcome(reference, "imported", DIGEST, f"{order.fleet}/app/{reference}")
            )
        if self.failure is not None:
            raise self.failure
        return outcomes


@dataclass(frozen=True)
class Artifact:
    """An ArtifactRecord."""

    target: SignedTarget
    imported_by: str | None = "ann"
    imported_at: float | None = 1000.0
    bytes: int | None = 4096
    pulled: int | None = 3
    last_pulled: float | None = 2000.0
    platforms: Sequence[str] = ("linux/arm64",)


def artifact(fleet: str, name: str, version: str) -> Artifact:
    """An artifact as if it had been imported."""
    return Artifact(
        SignedTarget(
            fleet=fleet,
            name=name,
            version=version,
            digest=DIGEST,
            length=8,
            registry=RegistryHost.parse("ghcr.io"),
            repository=Repository.parse("org/app"),
            media_type="application/vnd.oci.image.index.v1+json",
            reference=version,
        )
    )


@dataclass(frozen=True)
class Verified:
    """A Verification."""

    checked: int = 3
    blobs: int = 2
    cached: int | None = 2
    problems: Sequence[tuple[str, str]] = ()


@dataclass
class FakeArtifacts:
    """Artifacts in a dict by (fleet, name, version)."""

    records: dict[tuple[str, str, str], Artifact] = field(default_factory=dict)
    verdict: Verified = field(default_factory=Verified)

    def put(self, fleet: str, name: str, version: str) -> None:
        """Have one more."""
        self.records[fleet, name, version] = artifact(fleet, name, version)

    async def list(
        self, *, fleets: frozenset[str] | None, name: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Artifact], int]:
        found = [
            record
            for (fleet, called, _), record in sorted(self.records.items())
            if (fleets is None or fleet in fleets) and name in (None, called)
        ]
        return found[offset : offset + limit], len(found)

    async def get(self, fleet: str, name: str, version: str) -> Artifact:
        if (fleet, name, version) not in self.records:
            raise NotFound(f"There is no artifact {fleet}/{name}/{version}.")
        return self.records[fleet, name, version]

    async def verify(self, fleet: str, name: str, version: str) -> Verified:
        await self.get(fleet, name, version)
        return self.verdict

    async def withdraw(self, fleet: str, name: str, version: str, *, actor: str) -> None:
        await self.get(fleet, name, version)
        del self.records[fleet, name, version]

    async def blobs(
        self, fleet: str, name: str, version: str
    ) -> tuple[Connection, Repository, Sequence[tuple[Digest, int]]]:
        target = (await self.get(fleet, name, version)).target
        return Connection("id", target.registry, "anonymous"), target.repository, [(DIGEST, 8)]


@dataclass(frozen=True)
class Fleet:
    """A FleetRecord."""

    name: str
    artifacts: int = 0
    version: int | None = 1
    expires: float | None = 3000.0


@dataclass
class FakeFleets:
    """Fleets by name; `offline` refuses to add one."""

    names: list[str] = field(default_factory=lambda: ["dev"])
    offline: bool = False

    async def list(self) -> Sequence[Fleet]:
        return [Fleet(name) for name in sorted(self.names)]

    async def add(self, name: str) -> Fleet:
        if self.offline:
            raise Conflict(f"The targets key is away. Run: facade trust delegate {name}")
        self.names.append(name)
        return Fleet(name)
