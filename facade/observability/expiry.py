"""Gauges that count down: seconds until something expires, computed when they are read.

Guarantees: the figure shown is right at the moment of the scrape, also when nothing has refreshed
it since. Negative once expired. Does not decide anything: checks on freshness are `serving.trust`'s.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from facade.clock import Clock


@dataclass(frozen=True, slots=True)
class ExpiryGauge:
    """One family: metric name, help text, and the one label's name."""

    name: str
    help: str
    label: str


class ExpiryCollector(Collector):
    """Holds moments (Unix seconds) by family and label; yields the seconds left until each."""

    def __init__(self, clock: Clock, families: Iterable[ExpiryGauge]) -> None:
        self._clock = clock
        self._families = tuple(families)
        self._moments: dict[str, dict[str, float]] = {family.name: {} for family in self._families}
        self._sources: dict[str, Callable[[], Mapping[str, float]]] = {}

    def set(self, name: str, label: str, at: float | None) -> None:
        """Note that `label` of family `name` expires `at`; None forgets it."""
        if at is None:
            self._moments[name].pop(label, None)
        else:
            self._moments[name][label] = at

    def replace(self, name: str, moments: Mapping[str, float]) -> None:
        """Replace every label of family `name`."""
        self._moments[name] = dict(moments)

    def watch(self, name: str, source: Callable[[], Mapping[str, float]]) -> None:
        """Ask `source` for further labels of family `name` at each scrape: what is reloaded shows."""
        self._sources[name] = source

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """What prometheus_client asks for at each scrape."""
        now = self._clock.time()
        for family in self._families:
            gauge = GaugeMetricFamily(family.name, family.help, labels=[family.label])
            source = self._sources.get(family.name)
            moments = {**self._moments[family.name], **(source() if source else {})}
            for label, at in sorted(moments.items()):
                gauge.add_metric([label], at - now)
            yield gauge
