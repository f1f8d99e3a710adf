"""A token broker with real store and cache, a scripted token service, and a cloud that counts.

Guarantees: the clock stands still until a test moves it; refreshes have no jitter.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from facade.control.connections.store import ConnectionStore
from facade.control.credentials.broker import TokenBroker
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.providers import ProviderContext, Providers
from facade.oci.reference import Repository
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Scope
from tests.support.clock import FakeClock
from tests.support.control import CloudProvider, ScriptedTokenService, fresh_store

APP = Scope(Repository.parse("org/app"))
OTHER = Scope(Repository.parse("org/other"))
BASIC = (Challenge("basic", {"realm": "here"}),)
BEARER = (Challenge("bearer", {"realm": "https://registry.example/token", "service": "r"}),)


@dataclass
class Counts:
    """What the broker told its observer."""

    exchanges: list[tuple[str, str]] = field(default_factory=list)
    expiries: list[tuple[str, float | None]] = field(default_factory=list)

    def exchanged(self, provider: str, outcome: str) -> None:
        self.exchanges.append((provider, outcome))

    def token_expires(self, host: str, at: float | None) -> None:
        self.expiries.append((host, at))


@dataclass
class Parts:
    """A broker and everything around it."""

    clock: FakeClock
    store: ConnectionStore
    service: ScriptedTokenService
    cloud: CloudProvider
    counts: Counts
    broker: TokenBroker


@asynccontextmanager
async def broker_parts(folder: Path) -> AsyncIterator[Parts]:
    """A broker and everything around it."""
    clock = FakeClock()
    service, cloud, counts = ScriptedTokenService(clock), CloudProvider(clock), Counts()
    async with fresh_store(folder, clock) as store:
        broker = TokenBroker(
            connections=store,
            providers=Providers(ProviderContext(clock), {"cloud": cloud}),
            tokens=service,
            cache=MemoryTokenCache(clock),
            clock=clock,
            chance=lambda: 0.0,
            observer=counts,
        )
        store.on_forget(broker.forget)
        yield Parts(clock, store, service, cloud, counts, broker)
        await broker.close()


def header_of(authorization: Authorization) -> str | None:
    """The header's value."""
    return None if authorization.header is None else authorization.header.reveal()
