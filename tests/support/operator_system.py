"""In-memory devices, trust, cache, records and keys, for tests of the operator port and the CLI.

Guarantees: they keep what they are given and fail as they are told; nothing here checks anything that
the port must check.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from facade.control.api.permissions import Permission
from facade.control.pulls import PullRow
from facade.errors import NotFound
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.connection import Connection
from facade.wings import CacheStatus, Pulled, WarmResult
from tests.support.clock import FakeClock

ALL = frozenset(str(permission) for permission in Permission)


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
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        *,
        fetch: bool = True,
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
    id: int = 0


@dataclass
class FakeAudit:
    """Rows in a list."""

    rows: list[AuditRow] = field(default_factory=list)

    async def record(
        self, *, actor: str, action: str, subject: str, outcome: str, detail: Mapping[str, Any]
    ) -> None:
        number = len(self.rows) + 1
        self.rows.append(AuditRow(1000.0, actor, action, subject, outcome, detail, number))

    async def list(
        self,
        *,
        actor: str | None,
        action: str | None,
        before: int | None,
        limit: int,
        offset: int,
    ) -> tuple[Sequence[AuditRow], int]:
        found = [
            row
            for row in reversed(self.rows[: None if before is None else before - 1])
            if actor in (None, row.actor) and action in (None, row.action)
        ]
        return found[offset : offset + limit], len(found)


@dataclass
class FakePulls:
    """Pulls in a list."""

    rows: list[Pulled] = field(default_factory=list)

    async def list(
        self,
        *,
        fleet: str | None,
        device: str | None,
        before: int | None,
        limit: int,
        offset: int,
    ) -> tuple[Sequence[PullRow], int]:
        found = [
            PullRow(number, row)
            for number, row in reversed(tuple(enumerate(self.rows, 1)))
            if (fleet is None or row.device.startswith(f"{fleet}/"))
            and device in (None, row.device)
            and (before is None or number < before)
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

    def known(self, key: Secret) -> bool:
        return key.reveal() in self.by_value

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
