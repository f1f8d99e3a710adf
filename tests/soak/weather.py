"""What goes wrong upstream in a soak, one thing after the other, and what an operator does meanwhile."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

from tests.soak.devices import Device
from tests.soak.world import FIRST_IMAGES, ImportFailedError, World
from tests.support.misbehaviour import (
    Misbehaviour,
    chain,
    drop,
    ignore_range,
    rate_limited,
    slow_head,
    stall,
    status,
    trickle,
    truncate,
)

FAULT_SECONDS = 4.0
CALM_SECONDS = 3.0
OUTAGE_SECONDS = 3.0
OPERATOR_SECONDS = 6.0


class Weather:
    """Faults of the registry and of its token service."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._dice = random.Random(seed)

    async def blow(self) -> None:
        """Until cancelled; then calm."""
        try:
            while True:
                await asyncio.sleep(CALM_SECONDS)
                name, fault = self._dice.choice(self.faults())
                self._world.ledger.note("weather", name)
                await fault()
                self._world.registry.behave()
        finally:
            self._world.registry.behave()
            self._world.tokens.manner.status = None

    def faults(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """All kinds."""
        at = self._dice.randrange(1, 300_000)
        scripted: dict[str, Misbehaviour] = {
            "cut": truncate(at),
            "stall": stall(at),
            "503": status(503),
            "429": rate_limited("1"),
            "slow": chain(slow_head(1.0), trickle(100_000, 0.05)),
            "drop": drop(),
            "no ranges": chain(ignore_range(), truncate(at)),
        }
        found: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            (name, partial(self._script, change)) for name, change in scripted.items()
        ]
        return [*found, ("registry down", self._outage), ("token service down", self._no_tokens)]

    async def _script(self, change: Misbehaviour) -> None:
        self._world.registry.script("*/blobs/*", change, times=self._dice.randint(1, 12))
        await asyncio.sleep(FAULT_SECONDS)

    async def _outage(self) -> None:
        port = self._world.registry.port
        await self._world.registry.stop()
        await asyncio.sleep(OUTAGE_SECONDS)
        await self._world.registry.start(port)

    async def _no_tokens(self) -> None:
        self._world.tokens.revoke_all()
        self._world.tokens.manner.status = 503
        await asyncio.sleep(FAULT_SECONDS)
        self._world.tokens.manner.status = None


class Operator:
    """Imports, withdrawals, revocations, housekeeping."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._dice = random.Random(seed)
        self._seed = seed
        self._devices = 0

    async def work(self, tasks: asyncio.TaskGroup) -> None:
        """One change after the other, until cancelled."""
        while True:
            await asyncio.sleep(OPERATOR_SECONDS)
            job = self._dice.choice([self._turn_over, self._turn_over, self._keep])
            try:
                await job()
            except ImportFailedError as error:
                self._world.ledger.note("operator", f"import failed: {str(error)[:60]}")
            await self._replace(tasks)
            # What the upstream remembers of requests is the tester's memory, not the facade's.
            self._world.registry.requests.clear()
            self._world.tokens.requests.clear()

    async def _turn_over(self) -> None:
        """A new image; the oldest goes."""
        await self._world.ship()
        self._world.ledger.note("operator", "imported")
        if len(self._world.signed) > FIRST_IMAGES:
            await self._world.withdraw(self._world.signed[0])
            self._world.ledger.note("operator", "withdrew")

    async def _keep(self) -> None:
        """Look after the cache."""
        await self._world.api("POST", "/cache/prune")
        await self._world.api("GET", "/cache")
        await self._world.api("GET", "/pulls")
        self._world.ledger.note("operator", "pruned")

    async def _replace(self, tasks: asyncio.TaskGroup) -> None:
        """A device comes, works for a while, and is revoked."""
        self._devices += 1
        person = await self._world.enrol(f"guest-{self._devices}")
        device = Device(
            self._world, person, seed=self._seed + self._devices, keep_alive=self._devices % 2 == 0
        )
        tasks.create_task(device.work())
        await asyncio.sleep(OPERATOR_SECONDS / 2)
        await self._world.revoke(person)
        self._world.ledger.note("operator", "revoked")
