"""Store, broker and both upstream clients, joined as in the product, towards servers of the test.

Guarantees: names resolve to what the test says, ports included, so that a test's server can stand for
`registry-1.docker.io`; nothing but loopback may be connected to. Providers are the real ones, but
for those that the test brings.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp.abc import ResolveResult

from facade.clock import Clock
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.broker import TokenBroker
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.model import Provider
from facade.control.credentials.providers import ProviderContext, Providers
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.retry import RetryPolicy
from facade.upstream.token_client import TokenClient
from tests.support.broker import Counts
from tests.support.clock import FakeClock
from tests.support.control import connect, fresh_store
from tests.support.resolver import FakeResolver
from tests.support.upstream_client import LOOPBACK

INSECURE = ConnectionSettings(insecure=True)


class PortResolver(FakeResolver):
    """Names of this machine, each at the port of a test's server."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        super().__init__(dict.fromkeys(ports, "127.0.0.1"))
        self._ports = ports

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await super().resolve(host, port, family)
        for result in results:
            result["port"] = self._ports[host]
        return results


@dataclass(frozen=True, slots=True)
class Stack:
    """The joined parts."""

    store: ConnectionStore
    broker: TokenBroker
    client: RegistryClient
    counts: Counts
    names: FakeResolver

    async def connect(
        self, host: str, username: str = "robot", secret: str = "hunter2", **more: str
    ) -> Connection:
        """Connect a registry over plain http."""
        return await connect(
            self.store, host, username=username, secret=secret, settings=INSECURE, **more
        )


@asynccontextmanager
async def upstream_stack(
    folder: Path,
    *,
    ports: Mapping[str, int] | None = None,
    providers: Mapping[str, Provider] | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Stack]:
    """The parts, over a store in `folder`.

    Arguments:
        ports: host name → port of this machine.
        clock: stands still, but for pauses, when None.
    """
    clock = clock or FakeClock(auto=True)
    names, addresses = PortResolver(ports or {}), AddressPolicy(LOOPBACK)
    retry = RetryPolicy(attempts=3, chance=lambda: 0.5)
    counts = Counts()
    async with fresh_store(folder, clock) as store:
        tokens = TokenClient(addresses=addresses, clock=clock, retry=retry, resolver=names)
        broker = TokenBroker(
            connections=store,
            providers=Providers(ProviderContext(clock), dict(providers or {})),
            tokens=tokens,
            cache=MemoryTokenCache(clock),
            clock=clock,
            chance=lambda: 0.0,
            observer=counts,
        )
        store.on_forget(broker.forget)
        client = RegistryClient(
            authorizer=broker, addresses=addresses, clock=clock, retry=retry, resolver=names
        )
        try:
            yield Stack(store, broker, client, counts, names)
        finally:
            await broker.close()
            await client.close()
            await tokens.close()
