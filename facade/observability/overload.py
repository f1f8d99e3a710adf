"""What is counted of overload: connections, and registries' circuits and budgets.

Guarantees: labels are hosts that the operator connected, and words of fixed sets; a host that is no
longer connected is no longer shown.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from facade.observability.labels import Children
from facade.observability.modes import mode_of

Circuits = Callable[[], Mapping[str, bool]]
"""Connected hosts that were spoken to → whether the circuit is open."""
Budgets = Callable[[], Mapping[tuple[str, str], int]]
"""(host, kind of requests) → how many requests the registry still allows."""


class OverloadMetrics:
    """One process's; its methods implement the small observer protocols of the rooms below."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._upstream = _UpstreamCollector()
        registry.register(self._upstream)
        self._rate_waits = Children(
            Counter(
                "facade_device_rate_waits",
                "Times a device waited for a rate of its own.",
                ("limit",),
                registry=registry,
            )
        )
        self._opened = Children(
            Counter(
                "facade_upstream_circuit_opened",
                "Times a registry was given up until a probe succeeds.",
                ("host", "why"),
                registry=registry,
            )
        )

    def watch_listener(self, connections: Callable[[], int], handshakes: Callable[[], int]) -> None:
        """Show the device port's connections, asked for at each scrape. Call once."""
        self._gauge(
            "facade_connections",
            "Connections on the device port, those in their handshake included.",
        ).set_function(connections)
        self._gauge(
            "facade_handshakes_under_way",
            "Connections on the device port that are in their handshake.",
        ).set_function(handshakes)

    def _gauge(self, name: str, text: str) -> Gauge:
        mode_of(name)
        return Gauge(name, text, registry=self._registry)

    def circuit_opened(self, host: str, why: str) -> None:
        """The circuit of `host` opened; `why` is one of three words."""
        self._opened(host, why).inc()

    def rate_waited(self, limit: str) -> None:
        """A device waited for its "requests" or "bytes"."""
        self._rate_waits(limit).inc()

    def watch_upstream(self, circuits: Circuits, budgets: Budgets) -> None:
        """Show circuits and budgets, asked for at each scrape. Call once."""
        self._upstream.circuits, self._upstream.budgets = circuits, budgets


class _UpstreamCollector(Collector):
    def __init__(self) -> None:
        self.circuits: Circuits = dict
        self.budgets: Budgets = dict

    def collect(self) -> Iterable[GaugeMetricFamily]:
        circuit = GaugeMetricFamily(
            "facade_upstream_circuit_open",
            "1: the registry is given up until a probe succeeds.",
            labels=["host"],
        )
        for host, is_open in sorted(self.circuits().items()):
            circuit.add_metric([host], float(is_open))
        yield circuit
        budget = GaugeMetricFamily(
            "facade_upstream_budget_remaining",
            "Requests that a registry says are left.",
            labels=["host", "requests"],
        )
        for (host, kind), left in sorted(self.budgets().items()):
            budget.add_metric([host, kind], left)
        yield budget
