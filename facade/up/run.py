"""`facade up`: from a state folder to a `ready` line, and down again.

Guarantees: one line on stdout, when all ports answer; logs on stderr; SIGTERM and Ctrl-C drain and exit
with 0. A second start on the same folder is an error that names the PID.
"""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from facade.app.control import Offline
from facade.app.node import Node
from facade.app.with_workers import Ground, with_workers, worker_user
from facade.clock import Clock, SystemClock
from facade.config import Settings, load, parse_listen
from facade.control.devices.development import DevelopmentPki
from facade.descriptors import raise_limit
from facade.observability.logs import configure
from facade.server import Port, Server
from facade.up.first_start import prepare
from facade.up.settings import settle
from facade.up.state import PRIVATE, StateFolder, write
from facade.workers.sockets import bind_for_workers
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


def up(
    state: Path, *, names: Sequence[str], config_file: Path | None, environ: Mapping[str, str]
) -> int:
    """Run until SIGTERM or Ctrl-C; gives the exit status.

    Raises FacadeError when it cannot start.
    """
    raise_limit()
    settings = load(config_file, environ)
    configure(settings.log.level, settings.log.format, sys.stderr)
    return asyncio.run(_up(StateFolder(state.absolute()), names, settings, SystemClock()))


async def _up(state: StateFolder, names: Sequence[str], settings: Settings, clock: Clock) -> int:
    async with started(state, names, settings, clock) as running:
        running.server.heed_signals()
        urls = running.server.urls
        print(  # noqa: T201 - the one line of interface.md
            f"ready device={urls['device']} operator={urls['operator']} metrics={urls['metrics']}",
            flush=True,
        )
        gc.collect()
        gc.freeze()  # what was made at start stays: the collector need not look at it again
        await running.server.wait()
    return 0


@asynccontextmanager
async def started(
    state: StateFolder, names: Sequence[str], settings: Settings, clock: Clock
) -> AsyncIterator[Running]:
    """A facade on `state` that answers on all its ports; goes down on the way out."""
    state.create()
    lock = state.lock()
    try:
        async with AsyncExitStack() as stack:
            workers = await _launched(stack, settings, clock)
            pki = await asyncio.to_thread(prepare, state, names, clock)
            settled = settle(settings, state, pki)
            made = await stack.enter_async_context(_node(settled, state, workers, pki, clock))
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
    finally:
        lock.release()


async def _launched(stack: AsyncExitStack, settings: Settings, clock: Clock) -> Workers | None:
    """Serving processes that wait for their orders; they import while we make what is missing."""
    if not settings.device.workers:
        return None
    worker_user(settings)  # before anything is made: a name that is not there stops the start
    sockets = bind_for_workers(*parse_listen(settings.device.listen), settings.device.workers)
    workers = Workers(sockets, environ=os.environ, clock=clock)
    stack.push_async_callback(workers.close)
    await workers.launch()
    return workers


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
