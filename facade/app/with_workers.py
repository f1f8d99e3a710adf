"""Joins the control wing with serving processes: `facade up` with `device.workers` of 1 or more.

Guarantees: no worker is given what only the control side needs (`order.serving_settings`); the sockets'
folder admits the workers' user and ours only; whatever was started is taken down in the reverse order,
workers before the control port that they report to.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from facade.app.background import kept_running
from facade.app.control import Offline, control_wing
from facade.app.node import Node, Reloading, first_key
from facade.clock import Clock
from facade.config import Settings
from facade.control.devices.development import DevelopmentPki
from facade.errors import Invalid
from facade.link.cache_client import SocketCachePort
from facade.link.control_server import control_app
from facade.link.unix import served
from facade.link.workers_port import WorkersCachePort
from facade.listening import url_of
from facade.observability.health import Health
from facade.observability.metrics import Metrics
from facade.observability.port import metrics_app
from facade.observability.worker_counts import WorkerCounts
from facade.workers.gather import Gathering
from facade.workers.ground import metadata_folders, open_to, places
from facade.workers.order import Order, serving_settings
from facade.workers.signs import INTERVAL_SECONDS
from facade.workers.slot import Phase, Why
from facade.workers.stuck import StuckWatch
from facade.workers.supervisor import Workers
from facade.workers.user import WorkerUser, worker_user


@dataclass(frozen=True, slots=True)
class Ground:
    """What workers of another user are let into.

    Arguments:
        state: the folder that is `facade up`'s own.
        private: files there that become closed to others, before the folder can be passed through.
    """

    state: Path
    private: tuple[Path, ...]


@asynccontextmanager
async def with_workers(
    settings: Settings,
    workers: Workers,
    *,
    ground: Ground,
    pki: DevelopmentPki,
    offline: Offline,
    clock: Clock,
) -> AsyncIterator[Node]:
    """Wire and start everything; the `workers` are launched and serve when this yields.

    Raises FacadeError, in words, for whatever keeps it, or one of them, from starting.
    """
    user = worker_user(settings)
    metrics = Metrics(clock)
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(
            control_wing(settings, pki=pki, offline=offline, metrics=metrics, clock=clock)
        )
        spots = stack.enter_context(places(ground.state, user))
        folders = await asyncio.to_thread(_prepare, settings, ground, user)
        await stack.enter_async_context(
            served(
                control_app(
                    control.port,
                    clock=clock,
                    on_change=control.on_change,
                    middlewares=control.traces.link_middlewares,
                ),
                spots.control,
                allowed={os.geteuid() if user is None else user.uid},
                owner=None if user is None else user.uid,
            )
        )
        ports = [
            SocketCachePort(spots.cache(slot.index), name=f"Worker {slot.index}")
            for slot in workers.slots
        ]
        for port in ports:
            stack.push_async_callback(port.close)
        gathering = Gathering(metrics.registry, workers, ports)
        counts = WorkerCounts(
            metrics.registry,
            ready=lambda: workers.serving,
            configured=len(workers.slots),
            reasons=Why,
        )
        orders = [
            Order(
                index=slot.index,
                listen_fd=slot.sock.fileno(),
                control_socket=spots.control,
                cache_socket=spots.cache(slot.index),
                parent_uid=os.geteuid(),
                user=user,
                others=tuple(each for each in folders if each != folder),
                settings=serving_settings(settings, folder),
            ).encode()
            for slot, folder in zip(workers.slots, folders, strict=True)
        ]
        stack.push_async_callback(workers.close)
        await workers.begin(
            orders,
            observer=counts,
            retired=gathering.retired,
            up_to_date=lambda index: ports[index].refresh(),
        )
        watch = StuckWatch(workers, refuses_after=settings.device.deny_list_max_age, clock=clock)
        kept_running(stack, watch.run, pause=lambda: clock.sleep(INTERVAL_SECONDS))
        health = Health((*control.checks, ("workers", gathering.findings)))
        reload = Reloading(settings, workers.reload)
        metrics.watch_readiness(
            lambda: health.readiness().ready, lambda: health.readiness().status != "ok"
        )

        def serving() -> list[SocketCachePort]:
            return [
                port
                for slot, port in zip(workers.slots, ports, strict=True)
                if slot.phase is Phase.SERVING
            ]

        yield Node(
            device=None,
            device_url=url_of(workers.slots[0].sock, "https"),
            operator_app=control.operator_app(
                WorkersCachePort(serving, settled=lambda: workers.settled)
            ),
            operator_tls=reload.tls,
            metrics_app=metrics_app(gathering, health, look=gathering.look),
            health=health,
            reload=reload,
            drain=workers.drain,
            first_api_key=lambda: first_key(control),
        )


def _prepare(settings: Settings, ground: Ground, user: WorkerUser | None) -> list[Path]:
    """The folders of verified metadata; everything is open to `user`, and nothing else."""
    base, source = settings.trust.metadata_dir, settings.trust.source
    if base is None or source is None or settings.store.url is None:
        raise Invalid("Workers need trust.metadata_dir, trust.source and store.url.")
    folders = metadata_folders(base, settings.device.workers)
    if user is not None:
        cache = Path(unquote(urlsplit(settings.store.url).path))
        for file in ground.private:
            if file.exists():
                file.chmod(0o600)
        open_to(
            user,
            through=[
                ground.state,
                *_inside(ground.state, Path(source)),
                *_inside(ground.state, base.parent),
            ],
            read=_read_by_workers(settings, ground.state),
            own=[cache, *folders],
        )
    return folders


def _read_by_workers(settings: Settings, state: Path) -> list[Path]:
    """The files of `state` that workers open; an umask, or an older start, may have closed them."""
    device = settings.device
    files = [device.server_cert, device.server_key, settings.trust.root]
    files += [file for ca in device.ca for file in (ca.file, ca.crl)]
    return [file for file in files if file is not None and file.is_relative_to(state)]


def _inside(state: Path, place: Path) -> list[Path]:
    """The folders that lead from `state` to `place`, which is one of them; none for an URL."""
    return [
        each for each in (place, *place.parents) if each != state and each.is_relative_to(state)
    ]
