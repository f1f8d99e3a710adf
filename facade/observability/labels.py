"""Label children of a metric, resolved once and bounded in number.

Guarantees: a hot path pays one dictionary look-up instead of prometheus_client's label handling; no
metric ever grows beyond `limit` label sets, whatever a peer sends: the rest share "other".
"""

from typing import Generic, TypeVar

from prometheus_client.metrics import MetricWrapperBase

Metric = TypeVar("Metric", bound=MetricWrapperBase)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Histogram buckets for what is mostly quick."""

MAX_LABEL_SETS = 1024
"""Per metric. Hosts and fleets are named by the operator and may be some hundreds."""


class Children(Generic[Metric]):
    """The children of `metric`, by label values in the metric's own order."""

    def __init__(self, metric: Metric, *, limit: int = MAX_LABEL_SETS) -> None:
        self._metric = metric
        self._limit = limit
        self._children: dict[tuple[str, ...], Metric] = {}

    def __call__(self, *labels: str) -> Metric:
        """The child for these label values (that of "other" when there are too many)."""
        child = self._children.get(labels)
        return self._resolve(labels) if child is None else child

    def _resolve(self, labels: tuple[str, ...]) -> Metric:
        if len(self._children) >= self._limit:
            return self._metric.labels(*["other"] * len(labels))
        child = self._metric.labels(*labels)
        self._children[labels] = child
        return child
