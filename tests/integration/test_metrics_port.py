"""The metrics port over a real socket."""

from aiohttp.test_utils import TestClient, TestServer

from facade.clock import SystemClock
from facade.observability.health import Finding, Health, Severity
from facade.observability.metrics import Metrics
from facade.observability.port import metrics_app


async def test_probes_and_metrics() -> None:
    metrics = Metrics(SystemClock())
    metrics.hit("ghcr.io")
    findings: list[Finding] = []
    health = Health([("test", lambda: findings)])
    async with TestClient(TestServer(metrics_app(metrics, health))) as client:
        answer = await client.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert (
            'facade_cache_requests_total{host="ghcr.io",outcome="hit"} 1.0' in await answer.text()
        )
        assert (await client.get("/healthz")).status == 200
        ready = await client.get("/readyz")
        assert (ready.status, await ready.json()) == (200, {"status": "ok", "reasons": []})

        findings.append(Finding(Severity.DEGRADED, "ghcr.io: 429"))
        ready = await client.get("/readyz")
        assert (ready.status, (await ready.json())["status"]) == (200, "degraded")

        findings.append(Finding(Severity.UNREADY, "no valid metadata"))
        ready = await client.get("/readyz")
        assert ready.status == 503
        assert (await ready.json())["reasons"] == ["no valid metadata", "ghcr.io: 429"]
        assert (await client.get("/healthz")).status == 200
