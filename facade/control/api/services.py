"""What the operator port needs, as ports and one frozen bundle.

Guarantees: names no adapter and no aiohttp type. Results are read by attribute, so use cases may
return richer values than are asked for here. Times are Unix seconds, sizes bytes. Every
method raises only `facade.errors`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from facade.clock import Clock
from facade.control.api.outcomes import (
    ArtifactRecord,
    AuditRecord,
    DeviceRecord,
    FleetRecord,
    IssuedCertificate,
    KeyRecord,
    ManifestSummary,
    PullRow,
    TagList,
    TagOutcome,
    TrustState,
    Verification,
)
from facade.control.api.permissions import Principal
from facade.control.connections.model import StoredConnection
from facade.control.credentials.model import Offered
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.secret import Secret
from facade.upstream.connection import Connection, ConnectionSettings
from facade.wings import CachePort

ProgressSink = Callable[[Mapping[str, Any]], None]
"""Takes `{"tag", "step"}` while a tag is worked on and `{"tag", "status", "error"?}` once it is done."""


class ConnectionLookup(Protocol):
    """Reads the connections."""

    def list(self) -> Sequence[StoredConnection]:
        """All, by host."""
        ...

    def get(self, host: RegistryHost) -> StoredConnection:
        """One. Raises NotFound."""
        ...

    def note(self, stored: StoredConnection) -> str | None:
        """What an operator should know about it, in words."""
        ...


class Connections(ConnectionLookup, Protocol):
    """Connect, change, remove and try registries."""

    async def add(
        self, provider: str, offered: Offered, settings: ConnectionSettings, *, actor: str
    ) -> StoredConnection:
        """Connect a registry. Raises Invalid, Conflict."""
        ...

    async def change(
        self, host: RegistryHost, *, offered: Offered | None, settings: ConnectionSettings | None
    ) -> StoredConnection:
        """Replace credentials, settings, or both; an absent user name stays. Raises NotFound, Invalid."""
        ...

    async def remove(self, host: RegistryHost) -> StoredConnection:
        """Forget it. Raises NotFound."""
        ...

    async def test(self, host: RegistryHost, repository: Repository | None) -> str:
        """Try it now; what works, in words. Raises NotFound, Upstream, Denied."""
        ...


class Browse(Protocol):
    """Look into a connected registry."""

    async def tags(
        self, host: RegistryHost, repository: Repository, *, hidden: bool, match: str | None
    ) -> TagList:
        """Tags, newest-likely first. Raises NotFound, Upstream."""
        ...

    async def manifest(
        self, host: RegistryHost, repository: Repository, reference: Tag | Digest
    ) -> ManifestSummary:
        """What a tag is now. Raises NotFound, Upstream, Invalid."""
        ...


@dataclass(frozen=True, slots=True)
class ImportOrder:
    """What to import, for whom."""

    host: RegistryHost
    repository: Repository
    references: tuple[Tag | Digest, ...]
    fleet: str
    name: str | None = None
    version: str | None = None
    platforms: tuple[str, ...] = ()
    with_referrers: bool = False
    warm: bool = False


class Importer(Protocol):
    """Freeze tags as signed artifacts."""

    async def run(
        self, order: ImportOrder, *, actor: str, progress: ProgressSink
    ) -> Sequence[TagOutcome]:
        """One outcome per tag, in order. Raises Invalid, NotFound for the order as a whole."""
        ...


class Artifacts(Protocol):
    """The signed artifacts."""

    async def list(
        self, *, fleets: frozenset[str] | None, name: str | None, limit: int, offset: int
    ) -> tuple[Sequence[ArtifactRecord], int]:
        """A page and the total; `fleets` None = all."""
        ...

    async def get(self, fleet: str, name: str, version: str) -> ArtifactRecord:
        """One, with its pulls counted. Raises NotFound."""
        ...

    async def verify(self, fleet: str, name: str, version: str) -> Verification:
        """Walk it again upstream. Raises NotFound, Upstream."""
        ...

    async def withdraw(self, fleet: str, name: str, version: str, *, actor: str) -> None:
        """Take it out of the signed metadata. Raises NotFound."""
        ...

    async def blobs(
        self, fleet: str, name: str, version: str
    ) -> tuple[Connection, Repository, Sequence[tuple[Digest, int]]]:
        """Where its blobs are and which, for warming. Raises NotFound."""
        ...


class Fleets(Protocol):
    """The fleets that the signed metadata delegates to."""

    async def list(self) -> Sequence[FleetRecord]:
        """All, by name."""
        ...

    async def add(self, name: str) -> FleetRecord:
        """Delegate to one more. Raises Conflict with the offline command to run."""
        ...


class Devices(Protocol):
    """The development CA and the deny list."""

    async def list(self) -> Sequence[DeviceRecord]:
        """All, by fleet and name."""
        ...

    async def issue(self, fleet: str, name: str, csr: str, *, actor: str) -> IssuedCertificate:
        """Sign a request. Raises Invalid for a bad CSR or an unknown fleet."""
        ...

    async def revoke(self, fleet: str, name: str, serial: str | None, *, actor: str) -> None:
        """Refuse every certificate so far, or one. Raises NotFound."""
        ...

    async def restore(self, fleet: str, name: str, *, actor: str) -> None:
        """Admit certificates issued from now on. Raises NotFound."""
        ...


class Audit(Protocol):
    """The audit trail."""

    async def record(
        self, *, actor: str, action: str, subject: str, outcome: str, detail: Mapping[str, Any]
    ) -> None:
        """Write a row."""
        ...

    async def list(
        self,
        *,
        actor: str | None,
        action: str | None,
        before: int | None,
        limit: int,
        offset: int,
    ) -> tuple[Sequence[AuditRecord], int]:
        """A page, newest first, of rows older than `before`, and the total."""
        ...


class Pulls(Protocol):
    """What devices pulled."""

    async def list(
        self,
        *,
        fleet: str | None,
        device: str | None,
        before: int | None,
        limit: int,
        offset: int,
    ) -> tuple[Sequence[PullRow], int]:
        """A page, newest first, of rows older than `before`, and the total."""
        ...


class ApiKeys(Protocol):
    """The operator keys."""

    async def authenticate(self, key: Secret) -> KeyRecord | None:
        """Whose key it is; None when it is unknown or revoked."""
        ...

    def known(self, key: Secret) -> bool:
        """Whether `authenticate` would very likely know it; never blocks."""
        ...

    async def create(
        self,
        name: str,
        permissions: frozenset[str],
        fleets: frozenset[str] | None,
        *,
        actor: str,
    ) -> tuple[KeyRecord, Secret]:
        """Make a key; the value is given this once."""
        ...

    async def list(self) -> Sequence[KeyRecord]:
        """All, oldest first."""
        ...

    async def revoke(self, key_id: str) -> KeyRecord:
        """Refuse it from now on. Raises NotFound."""
        ...


class SealingRotated(Protocol):
    """A changed sealing key (`control.connections.rotation.Rotated`)."""

    @property
    def key(self) -> str: ...
    @property
    def resealed(self) -> int: ...
    @property
    def retired(self) -> Sequence[str]: ...


class SealingRotation(Protocol):
    """The key that seals secrets at rest."""

    async def rotate(self) -> SealingRotated:
        """Seal everything with a fresh key, and drop the old ones. Raises Conflict, Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class OperatorServices:
    """Everything behind the operator port. `app.py` fills it.

    Arguments:
        trust: reads the published metadata; it blocks, so it is called in a thread.
    """

    connections: Connections
    browse: Browse
    importer: Importer
    artifacts: Artifacts
    fleets: Fleets
    devices: Devices
    trust: Callable[[], TrustState]
    cache: CachePort
    audit: Audit
    pulls: Pulls
    keys: ApiKeys
    sealing: SealingRotation
    clock: Clock


def principal(record: KeyRecord) -> Principal:
    """The holder of a key."""
    return Principal(record.id, record.name, record.permissions, record.fleets)
