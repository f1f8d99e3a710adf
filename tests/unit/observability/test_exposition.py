"""Metrics of several processes as one: sums, gauges by mode, and what stays of a dead process."""

import json
import random

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from facade.clock import SystemClock
from facade.errors import Invalid
from facade.observability.exposition import Families, decode, encode, lasting, merged, read, render
from facade.observability.metrics import Metrics
from facade.observability.modes import MODES, Mode, mode_of
from facade.observability.worker_counts import WorkerCounts


def process(count: int, *, flight: int = 0, expiry: float = 0, objects: int = 0) -> Families:
    """The families of one made-up process."""
    registry = CollectorRegistry()
    requests = Counter("facade_requests", "R.", ["route"], registry=registry)
    requests.labels("blobs").inc(count)
    lag = Histogram("facade_event_loop_lag_seconds", "L.", registry=registry, buckets=(1, 2))
    for _ in range(count):
        lag.observe(1.5)
    Gauge("facade_transfers_in_flight", "T.", registry=registry).set(flight)
    Gauge("facade_cache_objects", "O.", registry=registry).set(objects)
    until = Gauge("facade_metadata_expiry_seconds", "E.", ["role"], registry=registry)
    until.labels("timestamp").set(expiry)
    return read(registry)


def value(families: Families, family: str, sample: str, **labels: str) -> float:
    return families[family].samples[sample, tuple(labels.items())]


def test_counters_and_histograms_are_summed_and_gauges_by_mode() -> None:
    parts = [
        process(3, flight=1, expiry=50, objects=9),
        process(4, flight=2, expiry=40, objects=10),
        process(5, flight=4, expiry=60, objects=8),
    ]
    for _ in range(3):
        random.shuffle(parts)
        total = merged(parts)
        assert value(total, "facade_requests", "facade_requests_total", route="blobs") == 12
        lag = "facade_event_loop_lag_seconds"
        assert value(total, lag, f"{lag}_bucket", le="1.0") == 0
        assert value(total, lag, f"{lag}_bucket", le="2.0") == 12
        assert value(total, lag, f"{lag}_count") == 12
        assert value(total, lag, f"{lag}_sum") == 18
        flight = "facade_transfers_in_flight"
        assert value(total, flight, flight) == 7
        assert value(total, "facade_cache_objects", "facade_cache_objects") == 10
        expiry = "facade_metadata_expiry_seconds"
        assert value(total, expiry, expiry, role="timestamp") == 40


def test_when_it_began_is_when_the_first_began() -> None:
    parts = [process(1), process(1)]
    name = ("facade_requests_created", (("route", "blobs"),))
    moments = [part["facade_requests"].samples[name] for part in parts]
    assert merged(parts)["facade_requests"].samples[name] == min(moments)


def test_a_dead_process_leaves_what_it_counted_and_no_gauge() -> None:
    left = lasting(process(3, flight=1))
    assert set(left) == {"facade_requests", "facade_event_loop_lag_seconds"}
    total = merged([left, process(2, flight=2)])
    assert value(total, "facade_requests", "facade_requests_total", route="blobs") == 5
    assert value(total, "facade_transfers_in_flight", "facade_transfers_in_flight") == 2


DEEP = b"[" * 100_000
"""Nested deeper than Python's parser goes."""


def _wire(**changed: object) -> list[bytes]:
    """One sample as another process sends it, with something else in it."""
    it = {
        "name": "n",
        "kind": "counter",
        "text": "",
        "sample": "n_total",
        "label": "l",
        "labelled": "v",
        "value": 1,
        **changed,
    }
    sample = [it["sample"], [[it["label"], it["labelled"]]], it["value"]]
    return [json.dumps([[it["name"], it["kind"], it["text"], [sample]]]).encode()]


def test_the_samples_that_are_spoiled_below_are_good() -> None:
    assert (
        render(decode(_wire()[0]))
        == b'# HELP n_total \n# TYPE n_total counter\nn_total{l="v"} 1.0\n'
    )


def test_over_the_wire_and_on_the_page_it_is_the_same() -> None:
    families = process(7, flight=3, expiry=1.25)
    assert decode(encode(families)) == families
    registry = CollectorRegistry()
    Counter("facade_x", "An x.", ["host"], registry=registry).labels('a"\\\n').inc()
    assert render(decode(encode(read(registry)))) == generate_latest(registry)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"no", b"{}x", b"[1]", b"[[1]]", DEEP),
        *_wire(value="x"),
        *_wire(value=10**400),
        *_wire(kind="teapot"),
        *_wire(kind="counter\n"),
        *_wire(kind=[]),
        *_wire(name=""),
        *_wire(name="a\nb 1"),
        *_wire(sample="a b"),
        *_wire(sample=None),
        *_wire(sample="m_total"),
        *_wire(sample="n_other"),
        *_wire(sample=5),
        *_wire(label="a-b"),
        *_wire(label="a:b"),
        *_wire(label="__name__"),
        *_wire(label=[]),
        *_wire(text="\ud800"),
        *_wire(labelled="\ud800"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        decode(data)


@pytest.mark.parametrize("labels", [[["a", "1"], ["a", "2"]], [["a", "1"], ["a", "1"]], "ab"])
def test_labels_that_would_spoil_the_page_are_refused(labels: object) -> None:
    """Prometheus refuses a page whole for one sample with two labels of one name."""
    with pytest.raises(Invalid):
        decode(json.dumps([["n", "counter", "", [["n_total", labels, 1]]]]).encode())


def test_every_gauge_has_a_mode_and_every_mode_a_gauge() -> None:
    metrics = Metrics(SystemClock())
    metrics.watch_streams(lambda: 0)
    metrics.overload.watch_listener(lambda: 0, lambda: 0)
    metrics.watch_cache(lambda: 0, lambda: 0)
    metrics.watch_store(lambda: 0, lambda: 0)
    metrics.watch_readiness(lambda: True, lambda: False)
    WorkerCounts(metrics.registry, ready=lambda: 1, configured=2, reasons=("ended",))
    metrics.redis_up(True)
    gauges = {name for name, family in read(metrics.registry).items() if family.kind == "gauge"}
    assert gauges == set(MODES)


def test_a_gauge_without_a_mode_cannot_be_made() -> None:
    assert mode_of("facade_token_expiry_seconds") is Mode.MIN
    with pytest.raises(Invalid, match=r"modes\.py"):
        mode_of("facade_surprise")
