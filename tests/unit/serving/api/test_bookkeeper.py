"""One line, one set of metrics, one report per request; and who is at the other end."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from facade.device import Device
from facade.errors import Denied, Unavailable
from facade.observability.access import AccessLog
from facade.observability.metrics import Metrics
from facade.observability.redaction import ALLOWED_KEYS
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.api.exchange import LEFT_STATUS, Bookkeeper, Exchange
from facade.serving.api.peer import Peers
from facade.serving.pulls.reports import Reports
from facade.wings import Pulled
from tests.support.clock import FakeClock
from tests.support.serving import FakeControl, a_device

PULL = PullRequest(Role.BLOB, RegistryHost("ghcr.io"), Repository("org/app"), Digest.of(b"content"))


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.control = FakeControl()
        self.metrics = Metrics(self.clock)
        reports = Reports(control=self.control, clock=self.clock)
        self.books = Bookkeeper(self.metrics, reports, AccessLog(), self.clock)
        structlog.reset_defaults()

    def finish(self, **fields: Any) -> tuple[dict[str, Any], list[Pulled]]:
        exchange = Exchange(make_mocked_request("GET", "/"), "id", self.clock.monotonic())
        exchange.device, exchange.pull, exchange.route = a_device(), PULL, "blobs"
        for name, value in fields.items():
            setattr(exchange, name, value)
        self.clock.advance(1.5)
        with capture_logs() as lines:
            self.books.finished(exchange)
        (line,) = lines
        return dict(line), [e for e in self.control.events if isinstance(e, Pulled)]


def test_a_served_pull() -> None:
    bench = Bench()
    line, pulled = bench.finish(status=200, bytes_sent=7, cache="miss", begun=True, complete=True)
    assert (line["outcome"], line["seconds"], line["bytes"]) == ("served", 1.5, 7)
    assert (pulled[0].outcome, pulled[0].cache, pulled[0].bytes_sent) == ("served", "miss", 7)
    text = bench.metrics.render().decode()
    assert 'facade_sent_bytes_total{host="ghcr.io"} 7.0' in text
    assert set(line) - {"log_level"} <= ALLOWED_KEYS


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": 403, "error": Denied("no", reason=Reason.NOT_SIGNED)}, "refused"),
        (
            {
                "status": 200,
                "begun": True,
                "error": Denied("no", reason=Reason.DEVICE_REVOKED),
            },
            "cut",
        ),
        ({"status": 200, "begun": True}, "left"),
        ({"status": LEFT_STATUS}, "left"),
        ({"status": 304}, "served"),
    ],
)
def test_how_it_ended(fields: dict[str, Any], outcome: str) -> None:
    line, pulled = Bench().finish(**fields)
    assert line["outcome"] == pulled[0].outcome == outcome


def test_what_is_no_pull_is_not_reported_as_one() -> None:
    line, pulled = Bench().finish(status=200, pull=None, route="whoami")
    assert (line["route"], pulled) == ("whoami", [])


def test_pings_are_quiet() -> None:
    line, _ = Bench().finish(status=200, pull=None, route="version")
    assert line["log_level"] == "debug"


class Authorities:
    """Knows one certificate."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def certificates(self) -> "Authorities":
        return self

    def crls(self) -> tuple[()]:
        return ()

    def device(self, der: bytes) -> Device:
        if der != b"der":
            raise Denied("unknown", reason=Reason.IDENTITY)
        return self._device


class Transport(asyncio.Transport):
    def __init__(self, der: bytes | None) -> None:
        super().__init__({"peercert_der": der})


def a_peers(device: Device, control: FakeControl, clock: FakeClock) -> Peers:
    return Peers(
        authorities=Authorities(device), control=control, clock=clock, deny_list_max_age=900
    )


@pytest.mark.parametrize("transport", [None, Transport(None), Transport(b""), Transport(b"?")])
def test_no_certificate_is_nobody(transport: Transport | None) -> None:
    peers = a_peers(a_device(), FakeControl(), FakeClock())
    with pytest.raises(Denied) as refusal:
        peers.check(transport)
    assert refusal.value.reason is Reason.IDENTITY


def test_a_deny_list_that_nobody_confirms_admits_nobody() -> None:
    device, control = a_device(), FakeControl()
    peers = a_peers(device, control, FakeClock())
    control.silent = 899.9
    peers.check(Transport(b"der"))
    control.silent = 900
    with pytest.raises(Unavailable) as refusal:
        peers.check(Transport(b"der"))
    assert refusal.value.reason is Reason.DENY_LIST_TOO_OLD
    assert refusal.value.retry_after
    control.revoke(device.fleet, device.name, device.not_before.timestamp())
    with pytest.raises(Denied):  # what is known stays known
        peers.check(Transport(b"der"))


def test_who_may_go_on_is_judged_as_of_now() -> None:
    device, control, clock = a_device(), FakeControl(), FakeClock()
    peers = a_peers(device, control, clock)
    assert peers.check(Transport(b"der")) == device
    control.revoke("dev", "kiosk-7", clock.time())
    with pytest.raises(Denied) as revoked:
        peers.check(Transport(b"der"))
    assert revoked.value.reason is Reason.DEVICE_REVOKED
    control.restore()
    assert peers.identify(Transport(b"der")) == device
    clock.advance(40 * 86_400)
    with pytest.raises(Denied) as expired:
        peers.admit(replace(device))
    assert expired.value.reason is Reason.IDENTITY
