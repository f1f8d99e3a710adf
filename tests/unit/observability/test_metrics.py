"""Metrics: names, bounded labels, expiry computed at the scrape."""

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from facade.clock import SystemClock
from facade.control.credentials.observer import ExchangeObserver, SharedCacheObserver
from facade.control.port import ReportObserver
from facade.control.signing.schedule import SigningObserver
from facade.observability.labels import Children
from facade.observability.lag import LagObserver
from facade.observability.metrics import Metrics
from facade.reasons import Reason
from facade.serving.identity.handshake import TlsHooks
from facade.serving.identity.journal import HandshakeObserver
from facade.serving.pulls.admission import WaitObserver
from facade.serving.pulls.ports import PullObserver
from facade.serving.pulls.reports import BlobCounts
from facade.serving.trust.refresher import TrustObserver
from facade.upstream.observer import UpstreamObserver


class StillClock(SystemClock):
    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class View:
    def __init__(self, **expires: float) -> None:
        self.expires = expires


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of the labels' names) → value."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def exercise(metrics: Metrics) -> None:
    metrics.request_done("blobs", 200, 0.2)
    metrics.first_byte("blobs", 0.1)
    metrics.refused(Reason.NOT_SIGNED)
    metrics.sent("ghcr.io", 10)
    metrics.watch_streams(lambda: 1)
    metrics.waiting(1)
    metrics.hit("ghcr.io")
    metrics.joined("ghcr.io")
    metrics.missed("ghcr.io")
    metrics.fetched("ghcr.io", 7)
    metrics.transfer_started("ghcr.io")
    metrics.integrity_failed("ghcr.io", "org/private", "sha256:abc", "short")
    metrics.evicted(2, 300)
    metrics.answered("ghcr.io", None, 1.0)
    metrics.retried("ghcr.io", "timeout")
    metrics.exchanged("static", "ok")
    metrics.token_expires("ghcr.io", 1300)
    metrics.handshake_done(("::1", 1), b"der")
    metrics.handshake_failed(("::1", 1), "certificate expired", "CN=kiosk-7")
    metrics.watch_certificates(lambda: {"server": 2000})
    metrics.watch_readiness(lambda: True, lambda: False)
    metrics.watch_store(lambda: 9, lambda: 8)
    metrics.refreshed(View(timestamp=1100, snapshot=900))
    metrics.refresh_failed(Reason.METADATA_EXPIRED)
    metrics.resigned()
    metrics.resign_failed()
    metrics.role_expires("timestamp", 50)
    metrics.report_dropped()
    metrics.loop_lag(0.01)


def test_what_is_counted_is_shown() -> None:
    metrics = Metrics(StillClock())
    exercise(metrics)
    seen = samples(metrics)
    assert seen["facade_requests_total", "blobs", "200"] == 1
    assert seen["facade_refusals_total", "not-signed"] == 1
    assert seen["facade_sent_bytes_total", "ghcr.io"] == 10
    assert seen["facade_fetched_bytes_total", "ghcr.io"] == 7
    for outcome in ("hit", "join", "miss"):
        assert seen["facade_cache_requests_total", "ghcr.io", outcome] == 1
    assert seen["facade_upstream_requests_total", "ghcr.io", "none"] == 1
    assert seen["facade_transfers_in_flight",] == 1
    assert seen["facade_cache_evicted_bytes_total",] == 300
    assert seen["facade_handshake_failures_total", "certificate expired"] == 1
    assert seen["facade_metadata_refreshes_total", "metadata-expired"] == 1
    assert seen["facade_published_metadata_expiry_seconds", "timestamp"] == 50
    assert seen["facade_metadata_resignings_total", "failed"] == 1


def test_no_device_digest_or_repository_becomes_a_label() -> None:
    metrics = Metrics(StillClock())
    exercise(metrics)
    text = metrics.render().decode()
    assert "org/private" not in text
    assert "sha256:" not in text
    assert "kiosk-7" not in text


def test_every_name_is_ours() -> None:
    metrics = Metrics(StillClock())
    exercise(metrics)
    assert all(name[0].startswith("facade_") for name in samples(metrics))


def test_seconds_to_expiry_are_computed_at_the_scrape() -> None:
    clock = StillClock()
    metrics = Metrics(clock)
    metrics.refreshed(View(timestamp=1100))
    clock.now = 1150.0
    assert samples(metrics)["facade_metadata_expiry_seconds", "timestamp"] == -50


def test_a_new_view_replaces_the_roles_of_the_old_one() -> None:
    metrics = Metrics(StillClock())
    metrics.refreshed(View(gone=1100))
    metrics.refreshed(View(timestamp=1200))
    assert ("facade_metadata_expiry_seconds", "gone") not in samples(metrics)


def test_a_forgotten_expiry_is_not_shown() -> None:
    metrics = Metrics(StillClock())
    metrics.token_expires("ghcr.io", 1300)
    metrics.token_expires("ghcr.io", None)
    assert ("facade_token_expiry_seconds", "ghcr.io") not in samples(metrics)


def test_cache_size_is_asked_for_at_the_scrape() -> None:
    metrics = Metrics(StillClock())
    size = [5]
    metrics.watch_cache(lambda: 1, lambda: size[0])
    size[0] = 6
    assert samples(metrics)["facade_cache_bytes",] == 6


def test_certificates_are_asked_for_at_the_scrape_so_a_reload_shows() -> None:
    clock = StillClock()
    metrics = Metrics(clock)
    loaded = {"server": 2000.0, "device-ca:old.pem": 1500.0}
    metrics.watch_certificates(lambda: loaded)
    clock.now = 1400.0
    assert samples(metrics)["facade_certificate_expiry_seconds", "server"] == 600
    loaded = {"server": 9000.0}
    seen = samples(metrics)
    assert seen["facade_certificate_expiry_seconds", "server"] == 7600
    assert ("facade_certificate_expiry_seconds", "device-ca:old.pem") not in seen


def test_every_refusal_counts_from_zero_so_that_the_first_is_an_increase() -> None:
    seen = samples(Metrics(StillClock()))
    assert {seen["facade_refusals_total", reason.value] for reason in Reason} == {0}


def test_readiness_and_the_process_are_shown() -> None:
    metrics = Metrics(StillClock())
    ready = [True]
    metrics.watch_readiness(lambda: ready[0], lambda: not ready[0])
    ready[0] = False
    seen = samples(metrics)
    assert (seen["facade_ready",], seen["facade_degraded",]) == (0, 1)
    assert 0 < seen["facade_process_open_fds",] < seen["facade_process_max_fds",]


def test_two_instances_share_nothing() -> None:
    first, second = Metrics(StillClock()), Metrics(StillClock())
    first.hit("ghcr.io")
    assert ("facade_cache_requests_total", "ghcr.io", "hit") not in samples(second)


def test_a_flood_of_label_values_ends_in_other() -> None:
    registry = CollectorRegistry()
    children = Children(Counter("x", "x", ["reason"], registry=registry), limit=3)
    for number in range(10):
        children(str(number)).inc()
    assert registry.get_sample_value("x_total", {"reason": "0"}) == 1
    assert registry.get_sample_value("x_total", {"reason": "other"}) == 7
    assert registry.get_sample_value("x_total", {"reason": "3"}) is None


def test_a_label_set_needs_every_label() -> None:
    children = Children(Counter("y", "y", ["a", "b"], registry=CollectorRegistry()))
    with pytest.raises(ValueError, match="label"):
        children("only-one")


def test_it_implements_the_observer_of_every_room() -> None:
    """The type checker does the work; at run time this only keeps the imports honest."""
    metrics = Metrics(StillClock())
    rooms: list[
        BlobCounts
        | ExchangeObserver
        | HandshakeObserver
        | LagObserver
        | PullObserver
        | ReportObserver
        | SharedCacheObserver
        | SigningObserver
        | TlsHooks
        | TrustObserver
        | UpstreamObserver
        | WaitObserver
    ] = []
    blobs: BlobCounts = metrics
    exchanges: ExchangeObserver = metrics
    handshakes: HandshakeObserver = metrics
    lag: LagObserver = metrics
    pulls: PullObserver = metrics
    reports: ReportObserver = metrics
    shared: SharedCacheObserver = metrics
    signing: SigningObserver = metrics
    tls: TlsHooks = metrics
    trust: TrustObserver = metrics
    upstream: UpstreamObserver = metrics
    waits: WaitObserver = metrics
    rooms += [blobs, exchanges, handshakes, lag, pulls, reports, shared]
    rooms += [signing, tls, trust, upstream, waits]
    assert all(room is metrics for room in rooms)
