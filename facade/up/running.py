"""A facade that runs: both wings on a state folder, behind their ports.

Guarantees: whatever was started is taken down in the reverse order, devices' pulls before the operator's port;
what is made at the first start is there when the ports answer.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from facade.app.control import Offline
from facade.app.node import Node
from facade.app.with_workers import Ground, with_workers
from facade.clock import Clock
from facade.config import Settings, parse_listen
from facade.control.devices.development import DevelopmentPki
from facade.server import Port, Server
from facade.up.first_start import prepare
from facade.up.settings import settle
from facade.up.state import PRIVATE, StateFolder, write
from facade.workers.supervisor import Workers


@dataclass(frozen=True, slots=True)
class Running:
    """A started facade.

    Arguments:
        server: its ports; `server.urls` by name: device, operator, metrics.
    """

    server: Server
    node: Node
    state: StateFolder
    pki: DevelopmentPki


@asynccontextmanager
async def running(
    state: StateFolder,
    names: Sequence[str],
    settings: Settings,
    workers: Workers | None,
    clock: Clock,
) -> AsyncIterator[Running]:
    """A facade on `state`, which is ours alone; it answers on all its ports.

    Arguments:
        names: further ones that devices reach it by.
        workers: launched; None = this process serves devices.

    Raises FacadeError when it cannot start.
    """
    pki = await asyncio.to_thread(prepare, state, names, clock)
    settled = settle(settings, state, pki)
    async with _node(settled, state, workers, pki, clock) as made:
        if not state.api_key.exists():
            key = await made.first_api_key()
            write(state.api_key, f"{key.reveal()}\n", PRIVATE)
        server = Server(_ports(settled, made), reload=made.reload, draining=made.health.drain)
        await server.start()
        try:
            if made.device_url is not None:
                server.urls["device"] = made.device_url
            write(state.url, f"{server.urls['operator']}\n")
            write(state.metrics_url, f"{server.urls['metrics']}\n")
            yield Running(server, made, state, pki)
        finally:
            made.health.drain()
            await made.drain()
            await server.close()


def _node(
    settings: Settings,
    state: StateFolder,
    workers: Workers | None,
    pki: DevelopmentPki,
    clock: Clock,
) -> AbstractAsyncContextManager[Node]:
    offline = Offline(state.offline, state.offline_passphrase)
    if workers is None:
        # Only here: the device wing's imports are the workers' otherwise.
        from facade.app.alone import alone  # noqa: PLC0415

        return alone(settings, pki=pki, offline=offline, clock=clock)
    ground = Ground(state.root, state.private)
    return with_workers(settings, workers, ground=ground, pki=pki, offline=offline, clock=clock)


def _ports(settings: Settings, made: Node) -> list[Port]:
    """In this order, so that probes see the drain while devices' pulls finish."""
    ports = [
        Port("metrics", parse_listen(settings.metrics.listen), made.metrics_app),
        Port(
            "operator",
            parse_listen(settings.operator.listen),
            made.operator_app,
            tls=made.operator_tls,
        ),
    ]
    if made.device is not None:
        ports.append(
            Port(
                "device",
                parse_listen(settings.device.listen),
                made.device.app,
                layer=made.device.layer,
                idle_seconds=settings.device.limits.idle,
            )
        )
    return ports
