"""What is counted of requests to registries.

Guarantees: the label is a host that the operator connected; the troubles that alerts look for count from
zero from the first word with a host on, so that their first burst is an increase.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

from facade.observability.labels import SECONDS, Children

_TROUBLE = ("429", "503", "none")


class UpstreamCounts:
    """One process's; implements `upstream.observer.UpstreamObserver`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._answers = Children(
            Counter(
                "facade_upstream_requests",
                "Requests to registries.",
                ("host", "status"),
                registry=registry,
            )
        )
        self._seconds = Children(
            Histogram(
                "facade_upstream_latency_seconds",
                "Request to response headers.",
                ("host",),
                registry=registry,
                buckets=SECONDS,
            )
        )
        self._retries = Children(
            Counter(
                "facade_upstream_retries",
                "Requests to registries tried again.",
                ("host", "why"),
                registry=registry,
            )
        )
        self._spoken_to: set[str] = set()

    def answered(self, host: str, status: int | None, seconds: float) -> None:
        """`host` answered with `status` (None: not at all) after `seconds`."""
        if host not in self._spoken_to:  # as many as were ever connected
            self._spoken_to.add(host)
            for trouble in _TROUBLE:
                self._answers(host, trouble)
        self._answers(host, "none" if status is None else str(status)).inc()
        self._seconds(host).observe(seconds)

    def retried(self, host: str, why: str) -> None:
        """A request to `host` is tried again."""
        self._retries(host, why).inc()
