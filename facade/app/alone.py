"""Joins both wings in one process: `facade up` with `device.workers = 0`.

Guarantees: whatever was started is taken down in the reverse order, also when a later step fails:
first the operator port's work, then serving, then control, whose port serving reports to.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from facade.app.control import Offline, control_wing
from facade.app.node import DeviceSide, Node, Reloading, first_key
from facade.app.serving import serving_wing
from facade.clock import Clock
from facade.config import Settings
from facade.control.devices.development import DevelopmentPki
from facade.observability.health import Health
from facade.observability.metrics import Metrics
from facade.observability.port import metrics_app


@asynccontextmanager
async def alone(
    settings: Settings, *, pki: DevelopmentPki, offline: Offline, clock: Clock
) -> AsyncIterator[Node]:
    """Wire and start everything behind the ports.

    Raises FacadeError, in words, for whatever keeps it from starting.
    """
    metrics = Metrics(clock)
    async with (
        control_wing(settings, pki=pki, offline=offline, metrics=metrics, clock=clock) as control,
        serving_wing(settings, control=control.port, metrics=metrics, clock=clock) as serving,
    ):

        async def drain() -> None:
            """What the device port does not drain by itself."""
            serving.drain()

        health = Health((*serving.checks, *control.checks))
        reload = Reloading(settings, serving.contexts.reload)
        metrics.watch_readiness(
            lambda: health.readiness().ready, lambda: health.readiness().status != "ok"
        )
        yield Node(
            device=DeviceSide(serving.app, serving.layer),
            device_url=None,
            operator_app=control.operator_app(serving.cache),
            operator_tls=reload.tls,
            metrics_app=metrics_app(metrics, health),
            health=health,
            reload=reload,
            drain=drain,
            first_api_key=lambda: first_key(control),
        )
