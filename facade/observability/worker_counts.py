"""What the parent counts about its serving processes.

Guarantees: `facade_worker_restarts_total` counts processes that ended unasked, from zero;
`facade_workers` is how many answer now. A facade that serves in its own process has neither.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from facade.observability.modes import mode_of


class WorkerCounts:
    """Registers with `registry`; once per registry.

    Arguments:
        ready: how many answer, asked for at each scrape.
        configured: how many there should be.
    """

    def __init__(
        self, registry: CollectorRegistry, *, ready: Callable[[], int], configured: int
    ) -> None:
        self._restarts = Counter(
            "facade_worker_restarts", "Serving processes replaced.", registry=registry
        )
        self._gauge(registry, "facade_workers", "Serving processes that answer.").set_function(
            ready
        )
        self._gauge(registry, "facade_workers_configured", "Serving processes wanted.").set(
            configured
        )

    def worker_restarted(self) -> None:
        """A serving process ended unasked, and another takes its place."""
        self._restarts.inc()

    def _gauge(self, registry: CollectorRegistry, name: str, text: str) -> Gauge:
        mode_of(name)
        return Gauge(name, text, registry=registry)
