"""Everything that is counted, in one injected object with its own registry.

Guarantees: names start with `facade_` and follow Prometheus naming; no device name, digest or
repository is ever a label; hot paths use children resolved once. Its methods implement the
small observer protocols that the rooms below define (structurally: nothing there imports this).
Does not sum over processes: each worker has its own `Metrics`, `exposition` merges them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from facade.clock import Clock
from facade.observability.expiry import ExpiryCollector, ExpiryGauge
from facade.observability.labels import SECONDS, Children
from facade.observability.modes import mode_of
from facade.observability.overload import OverloadMetrics
from facade.observability.upstream import UpstreamCounts
from facade.reasons import Reason

_LONG_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 30, 60, 300, 900, 3600)
_METADATA = "facade_metadata_expiry_seconds"
_PUBLISHED = "facade_published_metadata_expiry_seconds"
_CERTIFICATE = "facade_certificate_expiry_seconds"
_TOKEN = "facade_token_expiry_seconds"  # noqa: S105 - a metric's name


class HasExpiries(Protocol):
    """What the metrics need of a signed view: Unix seconds of expiry by role."""

    @property
    def expires(self) -> Mapping[str, float]:
        """Role → Unix seconds."""
        ...


class Metrics:
    """All metrics of one process. `render()` gives the exposition text.

    Arguments:
        clock: for seconds-to-expiry, computed at each scrape.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.registry = CollectorRegistry()
        self._expiry = ExpiryCollector(
            clock,
            (
                ExpiryGauge(_METADATA, "Seconds until signed metadata expires.", "role"),
                ExpiryGauge(_PUBLISHED, "Seconds until a published role expires.", "role"),
                ExpiryGauge(_CERTIFICATE, "Seconds until a certificate expires.", "certificate"),
                ExpiryGauge(_TOKEN, "Seconds until the newest upstream token expires.", "host"),
            ),
        )
        self.registry.register(self._expiry)
        self.overload = OverloadMetrics(self.registry)
        # Descriptors, memory, processor time, start: `facade_process_…`.
        ProcessCollector(namespace="facade", registry=self.registry)
        self._requests = Children(
            self._counter("requests", "Requests on the device port.", "route", "status")
        )
        self._durations = Children(
            self._histogram("request_duration_seconds", "Whole request.", _LONG_SECONDS, "route")
        )
        self._ttfb = Children(
            self._histogram(
                "time_to_first_byte_seconds", "Request read to first body byte.", SECONDS, "route"
            )
        )
        self._refusals = Children(self._counter("refusals", "Requests refused.", "reason"))
        for reason in Reason:  # from zero, so that the first of its kind is an increase
            self._refusals(reason.value)
        self._sent = Children(self._counter("sent_bytes", "Body bytes sent to devices.", "host"))
        self._fetched = Children(
            self._counter("fetched_bytes", "Blob bytes received from registries.", "host")
        )
        self._cache = Children(
            self._counter("cache_requests", "Blob requests by outcome.", "outcome", "host")
        )
        self._in_flight = self._gauge("transfers_in_flight", "Upstream transfers running now.")
        self._waiting = self._gauge("requests_waiting", "Requests waiting for their slot.")
        upstream = UpstreamCounts(self.registry)
        self.answered, self.retried = upstream.answered, upstream.retried
        self._exchanges = Children(
            self._counter("token_exchanges", "Token exchanges.", "provider", "outcome")
        )
        self._redis: Gauge | None = None
        self._redis_refused = self._counter("redis_values_refused", "Values not written by us.")
        self._handshakes = self._counter("handshakes", "TLS handshakes completed.")
        self._handshake_failures = Children(
            self._counter("handshake_failures", "TLS handshakes failed.", "reason"), limit=64
        )
        self._integrity = Children(
            self._counter("integrity_failures", "Bytes that did not match.", "host")
        )
        self._evicted = self._counter("cache_evicted_objects", "Objects evicted.")
        self._evicted_bytes = self._counter("cache_evicted_bytes", "Bytes evicted.")
        self._refreshes = Children(
            self._counter("metadata_refreshes", "Signed metadata refreshes.", "outcome")
        )
        self._resigned = Children(
            self._counter("metadata_resignings", "Online roles signed anew.", "outcome")
        )
        self._resigned("failed")
        self._dropped = self._counter("reports_dropped", "Events the control side missed.")
        self._lag = self._histogram("event_loop_lag_seconds", "Late wake-ups.", SECONDS)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"facade_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        mode_of(f"facade_{name}")  # refuses one that could not be shown for several workers
        return Gauge(f"facade_{name}", text, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"facade_{name}", text, labels, registry=self.registry, buckets=buckets)

    def render(self) -> bytes:
        """The Prometheus text exposition of everything."""
        return generate_latest(self.registry)

    # The device port (serving.api).

    def request_done(self, route: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is one of a fixed set, never a path."""
        self._requests(route, str(status)).inc()
        self._durations(route).observe(seconds)

    def first_byte(self, route: str, seconds: float) -> None:
        """The first body byte left `seconds` after the request was read."""
        self._ttfb(route).observe(seconds)

    def refused(self, reason: Reason) -> None:
        """A request was refused or failed for `reason`."""
        self._refusals(reason.value).inc()

    def sent(self, host: str, count: int) -> None:
        """`count` body bytes of `host`'s content went out."""
        self._sent(host).inc(count)

    def watch_streams(self, count: Callable[[], int]) -> None:
        """Show how many blobs are being sent, asked for at each scrape. Call once."""
        self._gauge("streams_in_flight", "Blobs being sent to devices.").set_function(count)

    # Admission (serving.pulls).

    def waiting(self, change: int) -> None:
        """One request more (+1) or less (-1) waits for its slot."""
        self._waiting.inc(change)

    # Blobs (serving.blobs).

    def hit(self, host: str) -> None:
        """Served from the cache."""
        self._cache("hit", host).inc()

    def joined(self, host: str) -> None:
        """Joined a transfer that was running."""
        self._cache("join", host).inc()

    def missed(self, host: str) -> None:
        """Started a transfer."""
        self._cache("miss", host).inc()

    def fetched(self, host: str, count: int) -> None:
        """`count` bytes came from `host`."""
        self._fetched(host).inc(count)

    def transfer_started(self, host: str) -> None:
        """An upstream transfer began."""
        self._in_flight.inc()

    def transfer_finished(self, host: str) -> None:
        """It ended, well or badly."""
        self._in_flight.dec()

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Bytes did not match; only the host becomes a label."""
        self._integrity(host).inc()

    def evicted(self, objects: int, count: int) -> None:
        """`objects` of `count` bytes in all left the cache."""
        self._evicted.inc(objects)
        self._evicted_bytes.inc(count)

    def watch_cache(self, objects: Callable[[], int], size: Callable[[], int]) -> None:
        """Show the cache's objects and bytes, asked for at each scrape. Call once."""
        self._gauge("cache_objects", "Objects in the cache.").set_function(objects)
        self._gauge("cache_bytes", "Bytes in the cache.").set_function(size)

    def watch_store(self, limit: Callable[[], int], free: Callable[[], int]) -> None:
        """Show how many bytes the cache may hold, and its disk's free bytes. Call once."""
        self._gauge("cache_limit_bytes", "Bytes the cache may hold.").set_function(limit)
        self._gauge("cache_disk_free_bytes", "Free bytes on its disk.").set_function(free)

    # Upstream and tokens.

    def exchanged(self, provider: str, outcome: str) -> None:
        """A token exchange ended."""
        self._exchanges(provider, outcome).inc()

    def token_expires(self, host: str, at: float | None) -> None:
        """The newest token for `host` expires `at` (Unix seconds; None: forget it)."""
        self._expiry.set(_TOKEN, host, at)

    def redis_up(self, up: bool) -> None:
        """Redis answers, or does not; without one there is no such metric."""
        if self._redis is None:
            self._redis = self._gauge("redis_up", "1: Redis answers; 0: tokens stay in memory.")
        self._redis.set(up)

    def redis_value_refused(self) -> None:
        """A value in Redis was not what we put there."""
        self._redis_refused.inc()

    # Identity and trust.

    def handshake_done(self, peer: object, der: bytes) -> None:
        """A TLS handshake completed."""
        self._handshakes.inc()

    def expect_handshakes(self, reasons: Iterable[str]) -> None:
        """Count failures for these reasons from zero, so that the first burst is an increase."""
        for reason in reasons:
            self._handshake_failures(reason)

    def handshake_failed(self, peer: object, reason: str, certificate: object = None) -> None:
        """A TLS handshake failed; `reason` is OpenSSL's or ours, bounded in number."""
        self._handshake_failures(reason).inc()

    def watch_certificates(self, moments: Callable[[], Mapping[str, float]]) -> None:
        """Show when certificates end: name ("server", "device-ca:<file>") → Unix seconds."""
        self._expiry.watch(_CERTIFICATE, moments)

    def refreshed(self, view: HasExpiries) -> None:
        """New signed metadata is in use."""
        self._refreshes("ok").inc()
        self._expiry.replace(_METADATA, view.expires)

    def refresh_failed(self, reason: Reason | str) -> None:
        """A refresh failed; the old view stays while it is fresh."""
        self._refreshes(str(reason)).inc()

    # Signing (control.signing).

    def resigned(self) -> None:
        """Online roles were signed anew."""
        self._resigned("ok").inc()

    def resign_failed(self) -> None:
        """They were due, and could not be signed."""
        self._resigned("failed").inc()

    def role_expires(self, role: str, seconds_left: float) -> None:
        """A published role has `seconds_left`; the serving side's view says more about it."""
        self._expiry.set(_PUBLISHED, role, self._clock.time() + seconds_left)

    # The process.

    def watch_readiness(self, ready: Callable[[], bool], degraded: Callable[[], bool]) -> None:
        """Show what /readyz says, for whoever scrapes and does not probe. Call once."""
        self._gauge("ready", "1: this node can serve.").set_function(ready)
        self._gauge("degraded", "1: something is wrong; /readyz says what.").set_function(degraded)

    def report_dropped(self) -> None:
        """An event for the control side was dropped."""
        self._dropped.inc()

    def loop_lag(self, seconds: float) -> None:
        """A wake-up of the event loop came `seconds` late."""
        self._lag.observe(seconds)
