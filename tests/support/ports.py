"""Both ports of `facade.wings` for tests: the control wing's own over a real database, and both links.

Guarantees: what is linked runs over a real Unix socket, in a private folder below the one given.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from facade.clock import Clock, SystemClock
from facade.control.catalog.manifests import ClosureManifests
from facade.control.connections.store import ConnectionStore
from facade.control.port import InProcessControlPort
from facade.control.pulls import PullRecords
from facade.link.cache_client import SocketCachePort
from facade.link.cache_server import cache_app
from facade.link.control_client import SocketControlPort
from facade.link.control_server import control_app
from facade.link.unix import private_folder, served
from facade.upstream.connection import Authorizer
from facade.wings import CachePort, ControlPort, Revocations
from tests.support.control import fresh_database, fresh_store

US = frozenset({os.geteuid()})


@dataclass
class Deny:
    """A deny list that tests set."""

    now: Revocations = field(default_factory=Revocations)

    def revocations(self) -> Revocations:
        return self.now


@dataclass
class Dropped:
    """Counts what was dropped."""

    count: int = 0

    def report_dropped(self) -> None:
        self.count += 1


@dataclass
class ControlSide:
    """The in-process port and everything around it."""

    port: InProcessControlPort
    store: ConnectionStore
    deny: Deny
    manifests: ClosureManifests
    pulls: PullRecords
    dropped: Dropped


@asynccontextmanager
async def control_side(folder: Path, broker: Authorizer) -> AsyncIterator[ControlSide]:
    """A started control port on a fresh database."""
    clock, deny, dropped = SystemClock(), Deny(), Dropped()
    async with fresh_store(folder, clock) as store, fresh_database(folder) as database:
        manifests, pulls = ClosureManifests(database, clock), PullRecords(database)
        port = InProcessControlPort(
            connections=store,
            broker=broker,
            manifests=manifests,
            deny_list=deny,
            pulls=pulls,
            clock=clock,
            observer=dropped,
            max_events=10_000,
        )
        port.start()
        try:
            yield ControlSide(port, store, deny, manifests, pulls, dropped)
        finally:
            await port.close()


@asynccontextmanager
async def control_served(port: ControlPort, folder: Path) -> AsyncIterator[Path]:
    """`port` on a socket in `folder`; gives its path."""
    path = private_folder(folder / "run") / "control.sock"
    async with served(control_app(port, clock=SystemClock()), path, allowed=US):
        yield path


@asynccontextmanager
async def control_linked(
    path: Path, *, clock: Clock | None = None, dropped: Dropped | None = None
) -> AsyncIterator[SocketControlPort]:
    """A started client of the socket `path`."""
    client = SocketControlPort(path, clock=clock or SystemClock(), observer=dropped or Dropped())
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def cache_linked(
    cache: CachePort,
    folder: Path,
    *,
    metrics: Callable[[], bytes] = lambda: b"samples",
    health: Callable[[], bytes] = lambda: b"healthy",
    name: str = "worker.sock",
) -> AsyncIterator[SocketCachePort]:
    """`cache` on a socket, and its client."""
    path = private_folder(folder / "run") / name
    client = SocketCachePort(path)
    app = cache_app(cache, metrics=metrics, health=health)
    async with served(app, path, allowed=US):
        try:
            yield client
        finally:
            await client.close()
