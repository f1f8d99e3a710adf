"""The metrics port: /metrics, /healthz, /readyz.

Guarantees: answers from memory, or with what the serving processes say within a bound, so a probe is
quick while everything else is slow. Does not authenticate: it listens on loopback by default and shows no device, digest or repository.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from facade.observability.health import Health


class Rendered(Protocol):
    """What is counted: `metrics.Metrics`, or that of several processes."""

    def render(self) -> bytes:
        """The Prometheus text exposition of everything."""
        ...


async def _nobody() -> None:
    """There is no other process to ask."""


def metrics_app(
    metrics: Rendered, health: Health, *, look: Callable[[], Awaitable[None]] = _nobody
) -> web.Application:
    """The aiohttp application of the metrics port.

    Arguments:
        look: brings `metrics` and `health` up to date, within a bound.
    """

    async def show_metrics(request: web.Request) -> web.Response:
        await look()
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def alive(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
        await look()
        readiness = health.readiness()
        return web.json_response(
            {"status": readiness.status, "reasons": list(readiness.reasons)},
            status=200 if readiness.ready else 503,
        )

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    return app
