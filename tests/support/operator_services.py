"""In-memory use cases behind the operator port, for tests of the port itself and of the CLI.

Guarantees: they keep what they are given and fail as they are told; nothing here checks anything that
the port must check.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aiohttp import web
from aiohttp.test_utils import TestClient

from facade.control.api.services import OperatorServices
from facade.control.connections.model import StoredConnection
from facade.control.credentials.model import Offered
from facade.errors import Conflict, FacadeError, NotFound
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.upstream.connection import Connection, ConnectionSettings
from tests.support.clock import FakeClock
from tests.support.operator_catalog import FakeArtifacts, FakeBrowse, FakeFleets, FakeImporter
from tests.support.operator_sealing import FakeSealing
from tests.support.operator_system import (
    FakeAudit,
    FakeCache,
    FakeDevices,
    FakeKeys,
    FakePulls,
    FakeTrust,
    Role,
)

Client = TestClient[web.Request, web.Application]


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

    def note(self, stored: StoredConnection) -> str | None:
        return "Kept in no cache." if stored.connection.provider == "static" else None

    async def change(
        self, host: RegistryHost, *, offered: Offered | None, settings: ConnectionSettings | None
    ) -> StoredConnection:
        stored = self.get(host)
        if offered is not None:
            self.offered.append(offered)
            stored = replace(stored, username=offered.username or stored.username)
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
    sealing: FakeSealing = field(default_factory=FakeSealing)
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
            sealing=self.sealing,
            clock=self.clock,
        )
