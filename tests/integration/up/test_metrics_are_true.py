"""What a running `facade up` counts, beside what device, registry and token service saw themselves."""

import asyncio
import datetime as dt
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.support.facade_process import FacadeProcess
from tests.support.live import Live, live
from tests.support.pki import Authority
from tests.support.traffic import CACHE_ENV, JOINERS, Samples, Tally, Traffic, scrape

SLACK_SECONDS = 60
HISTOGRAMS = ("request_duration", "time_to_first_byte", "upstream_latency", "event_loop_lag")


@dataclass(frozen=True)
class Seen:
    """Everything, once it has happened."""

    it: Live
    tally: Tally
    metrics: Samples

    def value(self, name: str, **labels: str) -> float:
        """One sample; it has to be there."""
        return self.metrics[f"facade_{name}"][tuple(sorted(labels.items()))]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def seen(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seen]:
    folder = tmp_path_factory.mktemp("metrics")
    async with live(folder, env=CACHE_ENV) as it:
        traffic = Traffic(it)
        await traffic.everything()
        yield Seen(it, traffic.tally, await scrape(it))


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_requests_by_route_and_status(seen: Seen) -> None:
    tally = seen.tally
    assert seen.value("requests_total", route="manifests", status="200") == tally.count(
        "manifests", 200
    )
    # What is cut has had its status.
    assert (
        seen.value("requests_total", route="blobs", status="200")
        == tally.count("blobs", 200) + tally.cut
    )
    assert seen.value("requests_total", route="blobs", status="502") == tally.count("blobs", 502)
    refused = sum(
        value
        for labels, value in seen.metrics["facade_requests_total"].items()
        if dict(labels)["status"] in ("400", "403")
    )
    assert refused == tally.count("manifests", 400) + tally.count("manifests", 403)


async def test_refusals_by_reason(seen: Seen) -> None:
    expected = Counter(seen.tally.reasons)
    expected["integrity"] += seen.tally.cut
    for reason, count in expected.items():
        assert seen.value("refusals_total", reason=reason) == count
    assert sum(seen.metrics["facade_refusals_total"].values()) == expected.total()


async def test_bytes_sent_are_what_the_device_got(seen: Seen) -> None:
    sent = seen.value("sent_bytes_total", host=seen.it.host)
    cut_at_most = max(map(len, seen.it.images["v4"].blobs.values()))
    assert seen.tally.body_bytes <= sent < seen.tally.body_bytes + cut_at_most


async def test_bytes_fetched_are_what_the_registry_sent(seen: Seen) -> None:
    sizes = {
        str(digest): len(data)
        for image in seen.it.images.values()
        for digest, data in image.blobs.items()
    }
    asked = [request.path.rpartition("/")[2] for request in seen.it.registry.seen("*/blobs/*")]
    # One of them was the 503.
    extra = sum(sizes[digest] for digest in asked) - seen.value(
        "fetched_bytes_total", host=seen.it.host
    )
    assert extra in set(sizes.values())


async def test_hits_joins_and_misses(seen: Seen) -> None:
    def value(outcome: str) -> float:
        return seen.value("cache_requests_total", host=seen.it.host, outcome=outcome)

    assert value("join") == JOINERS - 1
    assert value("hit") == len(seen.it.images["v1"].blobs)  # its second pull
    assert value("join") + value("hit") + value("miss") == (
        seen.tally.count("blobs", 200) + seen.tally.cut
    )


async def test_what_is_in_flight(seen: Seen) -> None:
    during = seen.tally.during
    assert during["facade_transfers_in_flight"][()] == 1
    assert during["facade_streams_in_flight"][()] == JOINERS
    for name in ("transfers_in_flight", "streams_in_flight", "requests_waiting"):
        assert seen.value(name) == 0


async def test_histograms_count_every_request(seen: Seen) -> None:
    for route in ("manifests", "blobs"):
        answered = sum(
            value
            for labels, value in seen.metrics["facade_requests_total"].items()
            if dict(labels)["route"] == route
        )
        assert seen.value("request_duration_seconds_count", route=route) == answered
    ttfb = seen.value("time_to_first_byte_seconds_count", route="blobs")
    assert ttfb == seen.tally.count("blobs", 200) + seen.tally.cut
    slow = seen.value("time_to_first_byte_seconds_sum", route="blobs")
    assert slow > JOINERS * 0.2, "the slow registry shows"


async def test_upstream_requests_latency_and_retries(seen: Seen) -> None:
    host = seen.it.host
    answered = {
        dict(labels)["status"]: value
        for labels, value in seen.metrics["facade_upstream_requests_total"].items()
    }
    assert sum(answered.values()) == len(seen.it.registry.requests)
    assert answered["503"] == 1
    assert seen.value("upstream_latency_seconds_count", host=host) == len(seen.it.registry.requests)
    assert seen.value("upstream_retries_total", host=host, why="status") == 1


async def test_token_exchanges_and_their_end(seen: Seen) -> None:
    exchanged = seen.value("token_exchanges_total", provider="static", outcome="ok")
    assert exchanged == len(seen.it.tokens.requests) > 0
    left = seen.value("token_expiry_seconds", host=seen.it.host)
    assert 0 < left <= 300


async def test_metadata_expiry_by_role_is_what_trust_status_says(seen: Seen) -> None:
    roles = (await seen.it.facade.must("trust", "status", "--json")).json["roles"]
    assert {role["role"] for role in roles} == {"root", "targets", "snapshot", "timestamp", "dev"}
    for role in roles:
        for name in ("metadata_expiry_seconds", "published_metadata_expiry_seconds"):
            shown = seen.value(name, role=role["role"])
            assert abs(shown - role["expires_in"]) < SLACK_SECONDS, role
    assert seen.value("metadata_refreshes_total", outcome="ok") > 0
    assert seen.value("metadata_resignings_total", outcome="failed") == 0


async def test_handshakes_and_failures(seen: Seen) -> None:
    connections = len(seen.tally.answers) + seen.tally.cut  # each request has its own
    assert seen.value("handshakes_total") == connections
    assert seen.value("handshake_failures_total", reason="no-certificate") == (
        seen.tally.bad_handshakes
    )


async def test_integrity_failures(seen: Seen) -> None:
    assert seen.value("integrity_failures_total", host=seen.it.host) == 1


async def test_cache_size_and_evictions(seen: Seen) -> None:
    status = (await seen.it.facade.must("cache", "status", "--json")).json
    objects, count = await _sampled(seen.it, status["objects"])
    assert (objects, count) == (status["objects"], status["bytes"])
    assert seen.value("cache_evicted_objects_total") > 0
    assert seen.value("cache_evicted_bytes_total") > 0
    assert seen.value("cache_limit_bytes") == int(CACHE_ENV["FACADE_STORE__MAX_BYTES"])
    assert seen.value("cache_disk_free_bytes") > 0


async def _sampled(it: Live, objects: int) -> tuple[float, float]:
    """The gauges, once they were looked at again (every 10 s)."""
    async with asyncio.timeout(15):
        while True:
            metrics = await scrape(it)
            if metrics["facade_cache_objects"][()] == objects:
                return metrics["facade_cache_objects"][()], metrics["facade_cache_bytes"][()]
            await asyncio.sleep(0.5)


async def test_the_loop_and_the_process(seen: Seen) -> None:
    assert seen.value("event_loop_lag_seconds_count") > 0
    assert 0 < seen.value("process_open_fds") < seen.value("process_max_fds")
    assert seen.value("ready") == 1
    assert seen.value("degraded") == 1  # plain http to the registry, as /readyz says


async def test_every_histogram_is_there(seen: Seen) -> None:
    for name in HISTOGRAMS:
        assert f"facade_{name}_seconds_bucket" in seen.metrics


async def test_no_label_names_a_device_digest_or_repository(seen: Seen) -> None:
    labels = {
        (name, value)
        for samples in seen.metrics.values()
        for pairs in samples
        for name, value in pairs
    }
    assert not {value for _, value in labels if "kiosk" in value or "sha256" in value}
    assert {name for name, _ in labels} == {
        *("certificate", "host", "le", "outcome", "provider", "reason", "role", "route"),
        *("status", "why"),
    }


async def test_certificates_and_a_reloaded_one(seen: Seen) -> None:
    """Last but one: it changes the server's certificate."""
    facade = seen.it.facade
    for certificate, file in (
        ("server", "server.pem"),
        ("device-ca:device-ca.pem", "device-ca.pem"),
    ):
        inspected = await facade.cli("device", "inspect", facade.state / file, "--json")
        ends = dt.datetime.fromisoformat(inspected.json["not_after"])
        left = ends.timestamp() - time.time()
        shown = seen.value("certificate_expiry_seconds", certificate=certificate)
        assert abs(shown - left) < SLACK_SECONDS

    _replace_certificate(facade, Authority.root("Another server CA"))
    async with asyncio.timeout(10):
        while True:
            ends_in = (await scrape(seen.it))["facade_certificate_expiry_seconds"]
            if ends_in[(("certificate", "server"),)] <= 30 * 86_400:
                break
            await asyncio.sleep(0.1)


def _replace_certificate(facade: FacadeProcess, ca: Authority) -> None:
    leaf = ca.server()
    (facade.state / "server.pem").write_bytes(leaf.pem)
    (facade.state / "server.key").write_bytes(leaf.key_pem)
    os.kill(facade.pid, signal.SIGHUP)


async def test_a_removed_connection_shows_no_token(seen: Seen) -> None:
    """Last: it removes the connection."""
    await seen.it.facade.must("registry", "remove", seen.it.host, "--yes")
    assert not (await scrape(seen.it)).get("facade_token_expiry_seconds")
