"""What the operator port needs, as ports and one frozen bundle.

Guarantees: names no adapter and no aiohttp type. Results are read by attribute, so use cases may
return richer values than are asked for here. Times are Unix seconds, sizes bytes. Every
method raises only `facade.errors`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from facade.clock import Clock
from facade.control.api.permissions import Principal
from facade.control.connections.model import StoredConnection
from facade.control.credentials.model import Offered
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.secret import Secret
from facade.target import SignedTarget
from facade.upstream.connection import Connection, ConnectionSettings
from facade.wings import CachePort, Pulled

ProgressSink = Callable[[Mapping[str, Any]], None]
"""Takes `{"tag", "step"}` while a tag is worked on and `{"tag", "status", "error"?}` once it is done."""


class Connections(Protocol):
    """Connect, list, change, remove and try registries."""

    async def add(
        self, provider: str, offered: Offered, settings: ConnectionSettings, *, actor: str
    ) -> StoredConnection:
        """Connect a registry. Raises Invalid, Conflict."""
        ...

    def list(self) -> Sequence[StoredConnection]:
        """All, by host."""
        ...

    def get(self, host: RegistryHost) -> StoredConnection:
        """One. Raises NotFound."""
        ...

    async def change(
        self, host: RegistryHost, *, offered: Offered | None, settings: ConnectionSettings | None
    ) -> StoredConnection:
        """Replace credentials, settings, or both. Raises NotFound, Invalid."""
        ...

    async def remove(self, host: RegistryHost) -> StoredConnection:
        """Forget it. Raises NotFound."""
        ...

    async def test(self, host: RegistryHost, repository: Repository | None) -> str:
        """Try it now; what works, in words. Raises NotFound, Upstream, Denied."""
        ...


class TagList(Protocol):
    """Tags as the registry told them."""

    @property
    def tags(self) -> Sequence[str]: ...
    @property
    def clipped(self) -> bool: ...
    @property
    def pages(self) -> int: ...


class ManifestSummary(Protocol):
    """What a reference is just now. `platforms` are (platform, digest, size)."""

    @property
    def digest(self) -> Digest: ...
    @property
    def media_type(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def platforms(self) -> Sequence[tuple[str, Digest, int]]: ...
    @property
    def total_bytes(self) -> int | None: ...
    @property
    def created(self) -> str | None: ...
    @property
    def annotations(self) -> Mapping[str, str]: ...


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


class TagOutcome(Protocol):
    """What became of one tag; `status` is imported, unchanged, moved or failed."""

    @property
    def reference(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def digest(self) -> Digest | None: ...
    @property
    def target(self) -> str | None: ...
    @property
    def error(self) -> str | None: ...


class Importer(Protocol):
    """Freeze tags as signed artifacts."""

    async def run(
        self, order: ImportOrder, *, actor: str, progress: ProgressSink
    ) -> Sequence[TagOutcome]:
        """One outcome per tag, in order. Raises Invalid, NotFound for the order as a whole."""
        ...


class ArtifactRecord(Protocol):
    """A signed artifact and what is remembered of its import."""

    @property
    def target(self) -> SignedTarget: ...
    @property
    def imported_by(self) -> str | None: ...
    @property
    def imported_at(self) -> float | None: ...
    @property
    def bytes(self) -> int | None: ...
    @property
    def pulled(self) -> int | None: ...
    @property
    def last_pulled(self) -> float | None: ...


class Verification(Protocol):
    """What a second walk found: `problems` are (digest, sentence)."""

    @property
    def checked(self) -> int: ...
    @property
    def cached(self) -> int | None: ...
    @property
    def problems(self) -> Sequence[tuple[str, str]]: ...


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


class FleetRecord(Protocol):
    """A fleet; `expires` of its role."""

    @property
    def name(self) -> str: ...
    @property
    def artifacts(self) -> int: ...
    @property
    def version(self) -> int | None: ...
    @property
    def expires(self) -> float | None: ...


class Fleets(Protocol):
    """The fleets that the signed metadata delegates to."""

    async def list(self) -> Sequence[FleetRecord]:
        """All, by name."""
        ...

    async def add(self, name: str) -> FleetRecord:
        """Delegate to one more. Raises Conflict with the offline command to run."""
        ...


class DeviceRecord(Protocol):
    """A device that got a certificate here, or was revoked here."""

    @property
    def fleet(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def serial(self) -> str | None: ...
    @property
    def not_after(self) -> float | None: ...
    @property
    def revoked_at(self) -> float | None: ...
    @property
    def revoked_serials(self) -> Sequence[str]: ...


class IssuedCertificate(Protocol):
    """A fresh certificate, PEM; `ca` is the server's CA."""

    @property
    def certificate(self) -> str: ...
    @property
    def ca(self) -> str: ...
    @property
    def serial(self) -> str: ...
    @property
    def not_after(self) -> float: ...


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


class RoleState(Protocol):
    """One role of the published metadata (`control.signing.status.RoleStatus`)."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def expires(self) -> float: ...
    @property
    def key_ids(self) -> Sequence[str]: ...
    @property
    def threshold(self) -> int: ...
    @property
    def offline(self) -> bool: ...
    @property
    def targets(self) -> int | None: ...


class TrustState(Protocol):
    """The signed metadata as published (`control.signing.status.TrustStatus`)."""

    @property
    def roles(self) -> Sequence[RoleState]: ...
    @property
    def offline_keys_at_hand(self) -> bool: ...

    def warnings(self, now: float) -> Sequence[str]:
        """What somebody should do soon, in sentences."""
        ...


class AuditRecord(Protocol):
    """A row of the audit trail."""

    @property
    def at(self) -> float: ...
    @property
    def actor(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def detail(self) -> Mapping[str, Any]: ...


class Audit(Protocol):
    """The audit trail."""

    async def record(
        self, *, actor: str, action: str, subject: str, outcome: str, detail: Mapping[str, Any]
    ) -> None:
        """Write a row."""
        ...

    async def list(
        self, *, actor: str | None, action: str | None, limit: int, offset: int
    ) -> tuple[Sequence[AuditRecord], int]:
        """A page, newest first, and the total."""
        ...


class Pulls(Protocol):
    """What devices pulled."""

    async def list(
        self, *, fleet: str | None, device: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Pulled], int]:
        """A page, newest first, and the total."""
        ...


class KeyRecord(Protocol):
    """An API key, without its value."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def permissions(self) -> frozenset[str]: ...
    @property
    def fleets(self) -> frozenset[str] | None: ...
    @property
    def created_at(self) -> float: ...
    @property
    def last_used(self) -> float | None: ...


class ApiKeys(Protocol):
    """The operator keys."""

    async def authenticate(self, key: Secret) -> KeyRecord | None:
        """Whose key it is; None when it is unknown or revoked."""
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
    clock: Clock


def principal(record: KeyRecord) -> Principal:
    """The holder of a key."""
    return Principal(record.id, record.name, record.permissions, record.fleets)
