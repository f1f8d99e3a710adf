"""In-memory use cases behind the operator port, for tests of the port itself and of the CLI.

Guarantees: they keep what they are given and fail as they are told; nothing here checks anything that
the port must check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient

from facade.control.api.permissions import Permission
from facade.control.api.services import ImportOrder, OperatorServices, ProgressSink
from facade.control.connections.model import StoredConnection
from facade.control.credentials.model import Offered
from facade.errors import Conflict, FacadeError, NotFound
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.secret import Secret
from facade.target import SignedTarget
from facade.upstream.connection import Connection, ConnectionSettings
from facade.wings import CacheStatus, Pulled, WarmResult
from tests.support.clock import FakeClock

Client = TestClient[web.Request, web.Application]
DIGEST = Digest.of(b"an image")
ALL = frozenset(str(permission) for permission in Permission)


@dataclass
class FakeConnections:
    """Connections in a dict; `refusal` is raised by `test`."""

    stored: dict[RegistryHost, StoredConnection] = field(default_factory=dict)
    offered: list[Offered] = field(default_factory=list)
    refusal: FacadeError | None = None

    async def add(
        self, provider: str, offered: Offered, settings: ConnectionSettings, *, actor: str
    ) -> StoredConnection:
        if offered.host in self.stored:
            raise Conflict(f"{offered.host} is connected already.")
        self.offered.append(offered)
        connection = Connection(f"id-{len(self.offered)}", offered.host, provider, 1, settings)
        stored = StoredConnection(connection, offered.username, actor, 1000.0, 1000.0)
        self.stored[offered.host] = stored
        return stored

    def list(self) -> Sequence[StoredConnection]:
        return sorted(self.stored.values(), key=lambda stored: str(stored.host))

    def get(self, host: RegistryHost) -> StoredConnection:
        if host not in self.stored:
            raise NotFound(f"{host} is not connected.")
        return self.stored[host]

    async def change(
        self, host: RegistryHost, *, offered: Offered | None, settings: ConnectionSettings | None
    ) -> StoredConnection:
        stored = self.get(host)
        if offered is not None:
            self.offered.append(offered)
            stored = replace(stored, username=offered.username)
        if settings is not None:
            stored = replace(stored, connection=replace(stored.connection, settings=settings))
        self.stored[host] = stored
        return stored

    async def remove(self, host: RegistryHost) -> StoredConnection:
        self.get(host)
        return self.stored.pop(host)

    async def test(self, host: RegistryHost, repository: Repository | None) -> str:
        self.get(host)
        if self.refusal is not None:
            raise self.refusal
        return f"{host} lets us in."


@dataclass(frozen=True)
class FoundTags:
    """A TagList."""

    tags: Sequence[str]
    clipped: bool = False
    pages: int = 1


@dataclass(frozen=True)
class FoundManifest:
    """A ManifestSummary."""

    digest: Digest = DIGEST
    media_type: str = "application/vnd.oci.image.index.v1+json"
    size: int = 8
    platforms: Sequence[tuple[str, Digest, int]] = (("linux/arm64", DIGEST, 8),)
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


@dataclass
class FakeImporter:
    """Imports every tag but those in `bad`; `failure` fails the order as a whole."""

    bad: frozenset[str] = frozenset()
    failure: Exception | None = None
    fail_late: bool = False
    orders: list[ImportOrder] = field(default_factory=list)

    async def run(
        self, order: ImportOrder, *, actor: str, progress: ProgressSink
    ) -> Sequence[Outcome]:
        self.orders.append(order)
        if self.failure is not None and not self.fail_late:
            raise self.failure
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
    cached: int | None = 3
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


@dataclass(frozen=True)
class DeviceRow:
    """A DeviceRecord."""

    fleet: str
    name: str
    serial: str | None = "2a"
    not_after: float | None = 4000.0
    revoked_at: float | None = None
    revoked_serials: Sequence[str] = ()


@dataclass(frozen=True)
class Issued:
    """An IssuedCertificate."""

    certificate: str = "-----BEGIN CERTIFICATE-----\n"
    ca: str = "-----BEGIN CERTIFICATE-----\n"
    serial: str = "2a"
    not_after: float = 4000.0


@dataclass
class FakeDevices:
    """Devices by (fleet, name)."""

    rows: dict[tuple[str, str], DeviceRow] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    async def list(self) -> Sequence[DeviceRow]:
        return [self.rows[key] for key in sorted(self.rows)]

    async def issue(self, fleet: str, name: str, csr: str, *, actor: str) -> Issued:
        self.requests.append((fleet, name, csr))
        self.rows[fleet, name] = DeviceRow(fleet, name)
        return Issued()

    async def revoke(self, fleet: str, name: str, serial: str | None, *, actor: str) -> None:
        row = self.rows.get((fleet, name), DeviceRow(fleet, name))
        self.rows[fleet, name] = (
            replace(row, revoked_at=1000.0)
            if serial is None
            else replace(row, revoked_serials=(*row.revoked_serials, serial))
        )

    async def restore(self, fleet: str, name: str, *, actor: str) -> None:
        if (fleet, name) not in self.rows:
            raise NotFound(f"{fleet}/{name} was not revoked.")
        self.rows[fleet, name] = replace(self.rows[fleet, name], revoked_at=None)


@dataclass(frozen=True)
class Role:
    """A RoleState."""

    name: str
    expires: float
    version: int = 1
    key_ids: Sequence[str] = ("ab12",)
    threshold: int = 1
    offline: bool = False
    targets: int | None = None


@dataclass
class FakeTrust:
    """A TrustState."""

    roles: Sequence[Role]
    offline_keys_at_hand: bool = False

    def warnings(self, now: float) -> Sequence[str]:
        return [f"The role {role.name} has expired." for role in self.roles if role.expires < now]


@dataclass
class FakeCache:
    """A CachePort; `applied` is what `refresh` answers, `stuck` makes it hang."""

    applied: bool = True
    stuck: bool = False
    refreshed: int = 0
    clock: FakeClock = field(default_factory=FakeClock)

    async def refresh(self) -> bool:
        self.refreshed += 1
        if self.stuck:
            await self.clock.sleep(3600)
        return self.applied

    async def status(self) -> CacheStatus:
        return CacheStatus(objects=2, bytes=10, max_bytes=None, in_flight=0, quarantined=0)

    async def warm(
        self, connection: Connection, repository: Repository, digest: Digest, size: int
    ) -> WarmResult:
        return WarmResult(digest, size, cached=True)

    async def verify(self) -> tuple[int, int]:
        return 2, 0

    async def prune(self) -> tuple[int, int]:
        return 1, 5


@dataclass(frozen=True)
class AuditRow:
    """An AuditRecord."""

    at: float
    actor: str
    action: str
    subject: str
    outcome: str
    detail: Mapping[str, Any]


@dataclass
class FakeAudit:
    """Rows in a list."""

    rows: list[AuditRow] = field(default_factory=list)

    async def record(
        self, *, actor: str, action: str, subject: str, outcome: str, detail: Mapping[str, Any]
    ) -> None:
        self.rows.append(AuditRow(1000.0, actor, action, subject, outcome, detail))

    async def list(
        self, *, actor: str | None, action: str | None, limit: int, offset: int
    ) -> tuple[Sequence[AuditRow], int]:
        found = [
            row
            for row in reversed(self.rows)
            if actor in (None, row.actor) and action in (None, row.action)
        ]
        return found[offset : offset + limit], len(found)


@dataclass
class FakePulls:
    """Pulls in a list."""

    rows: list[Pulled] = field(default_factory=list)

    async def list(
        self, *, fleet: str | None, device: str | None, limit: int, offset: int
    ) -> tuple[Sequence[Pulled], int]:
        found = [
            row
            for row in reversed(self.rows)
            if (fleet is None or row.device.startswith(f"{fleet}/"))
            and device in (None, row.device)
        ]
        return found[offset : offset + limit], len(found)


@dataclass(frozen=True)
class Key:
    """A KeyRecord."""

    id: str
    name: str
    permissions: frozenset[str]
    fleets: frozenset[str] | None = None
    created_at: float = 1000.0
    last_used: float | None = None


@dataclass
class FakeKeys:
    """Keys by value."""

    by_value: dict[str, Key] = field(default_factory=dict)
    looked_up: int = 0

    def put(
        self, value: str, permissions: frozenset[str] = ALL, fleets: frozenset[str] | None = None
    ) -> None:
        """Have one more key, called like its value."""
        self.by_value[value] = Key(f"id-{value}", value, permissions, fleets)

    async def authenticate(self, key: Secret) -> Key | None:
        self.looked_up += 1
        return self.by_value.get(key.reveal())

    async def create(
        self,
        name: str,
        permissions: frozenset[str],
        fleets: frozenset[str] | None,
        *,
        actor: str,
    ) -> tuple[Key, Secret]:
        value = f"value-of-{name}"
        self.by_value[value] = Key(f"id-{name}", name, permissions, fleets)
        return self.by_value[value], Secret(value)

    async def list(self) -> Sequence[Key]:
        return list(self.by_value.values())

    async def revoke(self, key_id: str) -> Key:
        for value, key in self.by_value.items():
            if key.id == key_id:
                return self.by_value.pop(value)
        raise NotFound(f"There is no API key {key_id}.")


@dataclass
class Fakes:
    """All of them, and the bundle that the port takes."""

    connections: FakeConnections = field(default_factory=FakeConnections)
    browse: FakeBrowse = field(default_factory=FakeBrowse)
    importer: FakeImporter = field(default_factory=FakeImporter)
    artifacts: FakeArtifacts = field(default_factory=FakeArtifacts)
    fleets: FakeFleets = field(default_factory=FakeFleets)
    devices: FakeDevices = field(default_factory=FakeDevices)
    trust: FakeTrust = field(default_factory=lambda: FakeTrust([Role("root", 4e9, offline=True)]))
    cache: FakeCache = field(default_factory=FakeCache)
    audit: FakeAudit = field(default_factory=FakeAudit)
    pulls: FakePulls = field(default_factory=FakePulls)
    keys: FakeKeys = field(default_factory=FakeKeys)
    clock: FakeClock = field(default_factory=FakeClock)

    def services(self) -> OperatorServices:
        """The bundle."""
        return OperatorServices(
            connections=self.connections,
            browse=self.browse,
            importer=self.importer,
            artifacts=self.artifacts,
            fleets=self.fleets,
            devices=self.devices,
            trust=lambda: self.trust,
            cache=self.cache,
            audit=self.audit,
            pulls=self.pulls,
            keys=self.keys,
            clock=self.clock,
        )
