"""What is counted, as a value that passes between processes, and the sum of several of them.

Guarantees: counters and histograms are summed, gauges by `modes`; the order of the parts changes
nothing; what another process sent is parsed into the same value or refused as a whole. Does not
remember anything: who sums over processes that come and go keeps the last value of each.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from facade.errors import Invalid
from facade.observability.modes import MODES, Mode

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name, and its labels in the metric's own order."""

_ADDED_UP = frozenset({"counter", "histogram"})
_KINDS = _ADDED_UP | {"gauge"}
"""What we have; `prometheus_client` refuses to show a kind that it does not know."""
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
"""A metric's (Prometheus' data model)."""
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
"""A label's; those with two underscores are Prometheus' own, and spoil a whole page."""
_SUFFIXES = frozenset({"", "_total", "_created", "_bucket", "_count", "_sum"})
"""Of a family's samples."""
_CREATED = "_created"
_COMBINE: dict[Mode, Callable[[float, float], float]] = {
    Mode.SUM: lambda one, other: one + other,
    Mode.MAX: max,
    Mode.MIN: min,
}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with all its samples.

    Arguments:
        kind: Prometheus' word: "counter", "gauge", "histogram".
    """

    name: str
    kind: str
    help: str
    samples: Mapping[Key, float]


Families = Mapping[str, Family]
"""By name."""


def read(registry: Collector) -> Families:
    """Everything that `registry` holds now."""
    return {
        metric.name: Family(
            metric.name,
            metric.type,
            metric.documentation,
            {
                (sample.name, tuple(sample.labels.items())): sample.value
                for sample in metric.samples
            },
        )
        for metric in registry.collect()
    }


def encode(families: Families) -> bytes:
    """As JSON, for another process."""
    return json.dumps(
        [
            [
                family.name,
                family.kind,
                family.help,
                [[name, labels, value] for (name, labels), value in family.samples.items()],
            ]
            for family in families.values()
        ],
        separators=(",", ":"),
    ).encode()


def decode(data: bytes) -> Families:
    """What `encode` wrote, so that `render` can show it. Raises Invalid for anything else."""
    try:
        return {name: _family(name, *rest) for name, *rest in json.loads(data)}
    # Deep nesting, and a whole number beyond any float, are no ValueErrors.
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise Invalid("Another process sent samples that are none.") from error


def _family(name: Any, kind: Any, text: Any, samples: Any) -> Family:
    if kind not in _KINDS:
        raise ValueError("no kind of metric that we have")
    return Family(
        _name(name),
        str(kind),
        _text(text),
        {
            (_sample(sample, name), _labels(labels)): float(number)
            for sample, labels, number in samples
        },
    )


def _sample(value: Any, family: str) -> str:
    """A sample goes with its family, or it could stand for another's."""
    if value.removeprefix(family) not in _SUFFIXES or not value.startswith(family):
        raise ValueError("no name of a sample of that metric")
    return str(value)


def _labels(values: Any) -> tuple[tuple[str, str], ...]:
    labels = {label: _text(value) for label, value in values}
    if len(labels) != len(values) or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("no labels")
    return tuple(labels.items())


def _name(value: Any) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError("no name of a metric")
    return str(value)


def _text(value: Any) -> str:
    text = str(value)
    text.encode()  # JSON can hold half a character, which no page can
    return text


def merged(parts: Iterable[Families]) -> Families:
    """One set of families for several processes'."""
    result: dict[str, Family] = {}
    for part in parts:
        for name, family in part.items():
            known = result.get(name)
            result[name] = family if known is None else _both(known, family)
    return result


def _both(one: Family, other: Family) -> Family:
    samples = dict(one.samples)
    for key, value in other.samples.items():
        known = samples.get(key)
        samples[key] = value if known is None else _COMBINE[_mode(one, key[0])](known, value)
    return Family(one.name, one.kind, one.help, samples)


def _mode(family: Family, sample: str) -> Mode:
    if family.kind in _ADDED_UP:
        return Mode.MIN if sample.endswith(_CREATED) else Mode.SUM
    return MODES.get(family.name, Mode.SUM)


def lasting(families: Families) -> Families:
    """What stays true of a process that is gone: what it counted."""
    return {name: family for name, family in families.items() if family.kind in _ADDED_UP}


def known_only(families: Families, known: Families) -> Families:
    """What of `families` is a figure that `known` has as well."""
    return {
        name: Family(
            name,
            family.kind,
            family.help,
            {key: value for key, value in family.samples.items() if key in known[name].samples},
        )
        for name, family in families.items()
        if name in known
    }


def count(families: Families) -> int:
    """How many samples there are."""
    return sum(len(family.samples) for family in families.values())


def render(families: Families) -> bytes:
    """The Prometheus text exposition, labels in their order, families by name."""
    registry = CollectorRegistry()
    registry.register(_Shown(families))
    return generate_latest(registry)


class _Shown(Collector):
    """Families as prometheus_client wants them."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        for family in self._families.values():
            metric = Metric(family.name, family.help, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric
