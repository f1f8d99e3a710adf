"""The metrics port: /metrics, /healthz, /readyz.

Guarantees: answers from memory only, so a probe is quick while everything else is slow. Does not
authenticate: it listens on loopback by default and shows no device, digest or repository.
"""

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from facade.observability.health import Health
from facade.observability.metrics import Metrics


def metrics_app(metrics: Metrics, health: Health) -> web.Application:
    """The aiohttp application of the metrics port."""

    async def show_metrics(request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def alive(request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(request: web.Request) -> web.Response:
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
