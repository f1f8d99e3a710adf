"""`facade up`: from a state folder to a `ready` line, and down again.

Guarantees: one line on stdout, when all ports answer; logs on stderr; SIGTERM and Ctrl-C drain and exit
with 0. A second start on the same folder is an error that names the PID.
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from facade.app.node import Node, Offline, node
from facade.clock import Clock, SystemClock
from facade.config import Settings, load, parse_listen
from facade.control.devices.development import DevelopmentPki
from facade.descriptors import raise_limit
from facade.observability.logs import configure
from facade.server import Port, Server
from facade.up.first_start import prepare
from facade.up.settings import settle
from facade.up.state import PRIVATE, StateFolder, write


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
        pki = await asyncio.to_thread(prepare, state, names, clock)
        settled = settle(settings, state, pki)
        offline = Offline(state.offline, state.offline_passphrase)
        async with node(settled, pki=pki, offline=offline, clock=clock) as made:
            if not state.api_key.exists():
                key = await made.first_api_key()
                write(state.api_key, f"{key.reveal()}\n", PRIVATE)
            server = Server(
                # In this order, so that probes see the drain while devices' pulls finish.
                [
                    Port("metrics", parse_listen(settled.metrics.listen), made.metrics_app),
                    Port(
                        "operator",
                        parse_listen(settled.operator.listen),
                        made.operator_app,
                        tls=made.operator_tls,
                    ),
                    Port(
                        "device",
                        parse_listen(settled.device.listen),
                        made.device_app,
                        layer=made.device_layer,
                        idle_seconds=settled.device.limits.idle,
                    ),
                ],
                reload=made.reload,
                draining=made.health.drain,
            )
            await server.start()
            try:
                write(state.url, f"{server.urls['operator']}\n")
                yield Running(server, made, state, pki)
            finally:
                await server.close()
    finally:
        lock.release()
