"""Handshakes are all counted; failures are logged, not too many."""

from structlog.testing import capture_logs

from facade.serving.identity.handshake import HandshakeReason, PeerCertificate
from facade.serving.identity.journal import LINES, WINDOW_SECONDS, HandshakeJournal
from tests.support.clock import FakeClock


class _Counts:
    def __init__(self) -> None:
        self.done = 0
        self.failed: list[str] = []

    def handshake_done(self, peer: object, der: bytes) -> None:
        self.done += 1

    def handshake_failed(self, peer: object, reason: str, certificate: object = None) -> None:
        self.failed.append(reason)


def test_a_success_is_counted_and_not_logged() -> None:
    counts = _Counts()
    with capture_logs() as lines:
        HandshakeJournal(FakeClock(), counts).handshake_done("1.2.3.4:5", b"der")
    assert counts.done == 1
    assert lines == []


def test_a_failure_is_logged_with_whose_certificate_it_was() -> None:
    counts = _Counts()
    with capture_logs() as lines:
        HandshakeJournal(FakeClock(), counts).handshake_failed(
            "1.2.3.4:5", HandshakeReason.EXPIRED, PeerCertificate("CN=kiosk", "2a")
        )
    [line] = lines
    assert (line["reason"], line["subject"], line["serial"]) == ("expired", "CN=kiosk", "2a")
    assert counts.failed == ["expired"]


def test_a_scanner_fills_no_log_and_is_counted_all_the_same() -> None:
    counts, clock = _Counts(), FakeClock()
    journal = HandshakeJournal(clock, counts)
    with capture_logs() as lines:
        for _ in range(LINES + 30):
            journal.handshake_failed("1.2.3.4:5", HandshakeReason.NOT_TLS, None)
    assert len(lines) == LINES
    assert len(counts.failed) == LINES + 30
    clock.advance(WINDOW_SECONDS)
    with capture_logs() as lines:
        journal.handshake_failed("1.2.3.4:5", HandshakeReason.NOT_TLS, None)
    assert [line["event"] for line in lines] == ["handshakes_failed_unlogged", "handshake_failed"]
    assert lines[0]["count"] == 30


def test_a_balancer_that_speaks_the_old_protocol_is_told_what_to_do() -> None:
    with capture_logs() as lines:
        HandshakeJournal(FakeClock(), _Counts()).handshake_failed(
            "10.0.0.2:5", HandshakeReason.PROXY_V1, None
        )
    assert lines[0]["detail"] == "It sends PROXY v1; configure v2 (haproxy: send-proxy-v2)."
