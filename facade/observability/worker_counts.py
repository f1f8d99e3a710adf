"""What the parent counts about its serving processes.

Guarantees: `facade_worker_restarts_total` counts processes that were replaced, by why, each from zero;
`facade_workers` is how many answer now. A facade that serves in its own process has neither.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from facade.observability.modes import mode_of


class WorkerCounts:
    """Registers with `registry`; once per registry.

    Arguments:
        ready: how many answer, asked for at each scrape.
        configured: how many there should be.
        reasons: why one may be replaced.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        ready: Callable[[], int],
        configured: int,
        reasons: Iterable[str],
    ) -> None:
        self._restarts = Counter(
            "facade_worker_restarts", "Serving processes replaced.", ["reason"], registry=registry
        )
        for reason in reasons:
            self._restarts.labels(reason)
        self._gauge(registry, "facade_workers", "Serving processes that answer.").set_function(
            ready
        )
        self._gauge(registry, "facade_workers_configured", "Serving processes wanted.").set(
            configured
        )

    def worker_restarted(self, why: str) -> None:
        """A serving process ended unasked, and another takes its place."""
        self._restarts.labels(why).inc()

    def _gauge(self, registry: CollectorRegistry, name: str, text: str) -> Gauge:
        mode_of(name)
        return Gauge(name, text, registry=registry)
