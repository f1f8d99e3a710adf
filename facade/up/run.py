"""`facade up`: from a state folder to a `ready` line, and down again.

Guarantees: one line on stdout, when all ports answer; logs on stderr; SIGTERM and Ctrl-C drain and exit
with 0. A second start on the same folder is an error that names the PID. Nothing that takes long to
import comes before the serving processes are launched: theirs and ours then go on side by side.
"""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from facade.app.unwanted import no_authorities
from facade.clock import Clock, SystemClock
from facade.config import Settings, parse_listen
from facade.config.sources import load
from facade.descriptors import raise_limit
from facade.observability.logs import configure
from facade.up.manager import ServiceManager
from facade.up.state import StateFolder
from facade.workers.sockets import bind_for_workers
from facade.workers.supervisor import Workers
from facade.workers.user import worker_user

if TYPE_CHECKING:
    from facade.up.running import Running


def up(
    state: Path, *, names: Sequence[str], config_file: Path | None, environ: Mapping[str, str]
) -> int:
    """Run until SIGTERM or Ctrl-C; gives the exit status.

    Raises FacadeError when it cannot start.
    """
    raise_limit()
    settings = load(config_file, environ)
    configure(settings.log.level, settings.log.format, sys.stderr)
    gc.disable()  # until it serves: hardly anything that is made by then is garbage
    try:
        manager = ServiceManager(environ, os.getpid())
        folder = StateFolder(state.absolute())
        return asyncio.run(_up(folder, names, settings, SystemClock(), manager))
    finally:
        gc.enable()


async def _up(
    state: StateFolder,
    names: Sequence[str],
    settings: Settings,
    clock: Clock,
    manager: ServiceManager,
) -> int:
    async with manager.heartbeat(clock), started(state, names, settings, clock) as running:
        running.server.heed_signals()
        urls = running.server.urls
        await manager.tell("READY=1")
        print(  # noqa: T201 - the one line of interface.md
            f"ready device={urls['device']} operator={urls['operator']} metrics={urls['metrics']}",
            flush=True,
        )
        gc.freeze()  # what was made at start stays: the collector need not look at it again
        gc.enable()
        await running.server.wait()
        await manager.tell("STOPPING=1")
    return 0


@asynccontextmanager
async def started(
    state: StateFolder,
    names: Sequence[str],
    settings: Settings,
    clock: Clock,
    *,
    log: int | None = None,
) -> AsyncIterator["Running"]:
    """A facade on `state` that answers on all its ports; goes down on the way out.

    Arguments:
        log: a descriptor for its serving processes' logs; None = our stderr.
    """
    state.create()
    lock = state.lock()
    try:
        async with AsyncExitStack() as stack:
            workers = await _launched(stack, settings, clock, log)
            with no_authorities():
                from facade.up.running import running  # noqa: PLC0415 - half of our start

            yield await stack.enter_async_context(running(state, names, settings, workers, clock))
    finally:
        lock.release()


async def _launched(
    stack: AsyncExitStack, settings: Settings, clock: Clock, log: int | None
) -> Workers | None:
    """Serving processes that wait for their orders; they import while we make what is missing."""
    if not settings.device.workers:
        return None
    worker_user(settings)  # before anything is made: a name that is not there stops the start
    sockets = bind_for_workers(*parse_listen(settings.device.listen), settings.device.workers)
    workers = Workers(sockets, environ=os.environ, clock=clock, log=log)
    stack.push_async_callback(workers.close)
    await workers.launch()
    return workers
