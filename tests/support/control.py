"""What tests of the control wing share: a migrated database, a store, and a scripted token service.

Guarantees: the stores are the real ones on a real file; only the token service and the provider
that pretends to be a cloud are fakes, and they count what they were asked.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from facade.clock import Clock
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.model import Offered, Prepared, Presented, StoredSecrets
from facade.control.database.engine import Database
from facade.control.database.migrate import migrate
from facade.errors import FacadeError
from facade.oci.host import RegistryHost
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, ConnectionSettings, Scope
from facade.upstream.token import BasicCredentials, TokenAnswer


@asynccontextmanager
async def fresh_database(folder: Path) -> AsyncIterator[Database]:
    """A migrated, empty database in `folder`."""
    url = f"sqlite+aiosqlite:///{folder}/facade.db"
    await migrate(url)
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def fresh_store(folder: Path, clock: Clock) -> AsyncIterator[ConnectionStore]:
    """A loaded, empty connection store in `folder`."""
    async with fresh_database(folder) as database:
        store = ConnectionStore(database, Sealer(KeyRing.generate(), "connections"), clock)
        await store.load()
        yield store


async def connect(
    store: ConnectionStore,
    host: str = "registry.example",
    *,
    provider: str = "static",
    username: str = "robot",
    secret: str = "hunter2",
    settings: ConnectionSettings | None = None,
) -> Connection:
    """Add a connection without asking its provider."""
    fields = {"secret": Secret(secret)} if secret else {}
    stored = await store.add(
        RegistryHost.parse(host),
        provider,
        Prepared(username, fields),
        settings or ConnectionSettings(),
        actor="test",
    )
    return stored.connection


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the scripted token service."""

    host: str
    realm: str
    scope: str
    username: str | None
    password: str | None = field(repr=False)


@dataclass
class ScriptedTokenService:
    """Answers every exchange with a numbered token.

    Arguments:
        clock: to note when each token ends, in `ends`.
        lifetime: of the next token, in seconds.
        failures: raised first, one per exchange.
        gate: when given, every exchange waits for it.
    """

    clock: Clock
    lifetime: Callable[[], float] = lambda: 300.0
    ends: dict[str, float] = field(default_factory=dict, repr=False)
    failures: list[FacadeError] = field(default_factory=list)
    gate: asyncio.Event | None = None
    asked: list[Asked] = field(default_factory=list)

    async def exchange(
        self,
        connection: Connection,
        challenge: Challenge,
        scope: Scope,
        credentials: BasicCredentials | None,
    ) -> TokenAnswer:
        self.asked.append(
            Asked(
                host=str(connection.host),
                realm=challenge.parameters.get("realm", ""),
                scope=str(scope),
                username=credentials.username if credentials else None,
                password=credentials.password.reveal() if credentials else None,
            )
        )
        number = len(self.asked)
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        lifetime = self.lifetime()
        self.ends[f"token-{number}"] = self.clock.time() + lifetime
        return TokenAnswer(Secret(f"token-{number}"), lifetime)


@dataclass
class CloudProvider:
    """A provider whose credentials are exchanged and end, as those of Google and AWS."""

    clock: Clock
    lifetime: float = 3600.0
    eager: bool = False
    exchanges: bool = True
    exchanged: int = 0

    def prepare(self, offered: Offered) -> Prepared:
        return Prepared("cloud", {"key": Secret(str(offered.config.get("key", "")))})

    async def credentials(self, connection: Connection, stored: StoredSecrets) -> Presented:
        self.exchanged += 1
        basic = BasicCredentials("cloud", Secret(f"cloud-{self.exchanged}"))
        return Presented(basic, self.clock.time() + self.lifetime)
