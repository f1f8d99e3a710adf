"""Joins both wings in one process: what `facade up` runs.

Guarantees: whatever was started is taken down in the reverse order, also when a later step fails:
first the operator port's work, then serving, then control, whose port serving reports to.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web

from facade.app.control import ControlWing, Offline, control_wing
from facade.app.serving import ServingWing, serving_wing
from facade.clock import Clock
from facade.config import Settings
from facade.control.devices.development import DevelopmentPki
from facade.errors import FacadeError, Invalid
from facade.observability.health import Health
from facade.observability.metrics import Metrics
from facade.observability.port import metrics_app
from facade.secret import Secret
from facade.server import Layer

__all__ = ["Node", "Offline", "node"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """Applications for the ports of one process."""

    device_app: web.Application
    device_layer: Layer
    operator_app: web.Application
    operator_tls: ssl.SSLContext | None
    metrics_app: web.Application
    health: Health
    reload: Callable[[], None]
    first_api_key: Callable[[], "asyncio.Future[Secret]"]


@asynccontextmanager
async def node(
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
        health = Health((*serving.checks, *control.checks))
        operator_tls = _operator_tls(settings.operator.cert, settings.operator.key)
        metrics.watch_readiness(
            lambda: health.readiness().ready, lambda: health.readiness().status != "ok"
        )
        yield Node(
            device_app=serving.app,
            device_layer=serving.layer,
            operator_app=control.operator_app(serving.cache),
            operator_tls=operator_tls,
            metrics_app=metrics_app(metrics, health),
            health=health,
            reload=lambda: _reload(serving, settings, operator_tls),
            first_api_key=lambda: _first_key(control),
        )


def _first_key(control: ControlWing) -> "asyncio.Future[Secret]":
    return asyncio.ensure_future(control.first_api_key())


def _reload(serving: ServingWing, settings: Settings, operator_tls: ssl.SSLContext | None) -> None:
    """On SIGHUP; a broken file keeps the old ones and says so."""
    try:
        serving.contexts.reload()
        fresh = _operator_tls(settings.operator.cert, settings.operator.key)
        if fresh is not None and operator_tls is not None:
            # Only after a fresh context took both: a live one would be left with half of them.
            _load(operator_tls, settings.operator.cert, settings.operator.key)
    except FacadeError as error:
        log.error("tls_reload_failed", error=error.message)
    else:
        log.info("tls_reloaded")


def _operator_tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: Path | None, key: Path | None) -> None:
    assert cert is not None
    try:
        # An encrypted key must not make a service prompt.
        context.load_cert_chain(cert, key, password=b"")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise Invalid(f"operator.cert {cert} and operator.key {key} cannot be used.") from error
