"""The operator's side whole: store, broker, real clients, browse, import; against real sockets.

Guarantees: only the registry and its token service are the test's; loopback is allowed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facade.clock import SystemClock
from facade.control.api.services import ImportOrder
from facade.control.catalog.batch import TagOutcome
from facade.control.catalog.browse import Browse
from facade.control.catalog.importer import Importer
from facade.control.catalog.manifests import ClosureManifests
from facade.control.catalog.records import ImportRecords
from facade.control.connections.manage import Connections
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.broker import TokenBroker
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.model import Offered
from facade.control.credentials.providers import ProviderContext, Providers
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.token_client import TokenClient
from tests.support.control import fresh_database
from tests.support.signing import SignedRepository, make_repository

REPOSITORY = Repository("org/app")


@dataclass
class OperatorSide:
    """Everything that an operator works with."""

    store: ConnectionStore
    broker: TokenBroker
    client: RegistryClient
    connections: Connections
    browse: Browse
    importer: Importer
    signed: SignedRepository

    async def connect(
        self, host: RegistryHost, secret: str | None = "pw", **settings: Any
    ) -> Connection:
        """Connect with plain http, as the user robot, or anonymously when `secret` is None."""
        offered = Offered(host, "robot", Secret(secret)) if secret else Offered(host)
        stored = await self.connections.add(
            "static" if secret else "anonymous",
            offered,
            ConnectionSettings(insecure=True, **settings),
            actor="op",
        )
        return stored.connection

    async def run(self, host: RegistryHost, *tags: str, **order: Any) -> Sequence[TagOutcome]:
        """Import tags into the fleet dev."""
        made = ImportOrder(host, REPOSITORY, tuple(map(Tag, tags)), "dev", **order)
        return await self.importer.run(made, actor="op", progress=lambda event: None)


@asynccontextmanager
async def operator_side(folder: Path) -> AsyncIterator[OperatorSide]:
    """An operator's side below `folder`."""
    clock, addresses = SystemClock(), AddressPolicy(["127.0.0.0/8"])
    signed = await asyncio.to_thread(make_repository, folder / "signing")
    async with fresh_database(folder) as database:
        store = ConnectionStore(database, Sealer(KeyRing.generate(), "connections"), clock)
        await store.load()
        tokens = TokenClient(addresses=addresses, clock=clock)
        providers = Providers(ProviderContext(clock))
        broker = TokenBroker(
            connections=store,
            providers=providers,
            tokens=tokens,
            cache=MemoryTokenCache(clock),
            clock=clock,
        )
        store.on_forget(broker.forget)
        client = RegistryClient(authorizer=broker, addresses=addresses, clock=clock)
        browse = Browse(store, client)
        connections = Connections(
            store=store,
            providers=providers,
            broker=broker,
            registry=client,
            tags=browse,
            addresses=addresses,
            clock=clock,
        )
        importer = Importer(
            connections=store,
            registry=client,
            publisher=signed.publisher,
            manifests=ClosureManifests(database, clock),
            records=ImportRecords(database, clock),
        )
        try:
            yield OperatorSide(store, broker, client, connections, browse, importer, signed)
        finally:
            await broker.close()
            await client.close()
            await tokens.close()
