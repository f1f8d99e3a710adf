"""Takes note of handshakes: every one is counted, failed ones are logged, not too many.

Guarantees: at most `LINES` lines per `WINDOW_SECONDS`, then one that says how many were left out, so a
port scanner fills no disk. What a refused certificate says of itself was not verified: it is
logged for people and decides nothing.
"""

from typing import Protocol

import structlog

from facade.clock import Clock
from facade.serving.identity.handshake import HandshakeReason, PeerCertificate

log = structlog.get_logger(__name__)

LINES = 20
WINDOW_SECONDS = 60.0


_WHAT_TO_DO = {
    HandshakeReason.PROXY_MISSING: "It is listed in device.proxy_protocol_from and sends no PROXY v2 "
    "header; switch that on there (haproxy: send-proxy-v2), or take it off the list.",
    HandshakeReason.PROXY_V1: "It sends PROXY v1; configure v2 (haproxy: send-proxy-v2).",
    HandshakeReason.PROXY_MALFORMED: "What it sends is no PROXY v2 header over TCP.",
    HandshakeReason.PROXY_TIMEOUT: "Its PROXY v2 header did not come in time.",
}


class HandshakeObserver(Protocol):
    """Counts handshakes."""

    def handshake_done(self, peer: object, der: bytes) -> None:
        """One succeeded."""
        ...

    def handshake_failed(self, peer: object, reason: str, certificate: object = None) -> None:
        """One failed."""
        ...


class HandshakeJournal:
    """Implements `TlsHooks`."""

    def __init__(self, clock: Clock, observer: HandshakeObserver) -> None:
        self._clock = clock
        self._observer = observer
        self._window_ends = 0.0
        self._logged = 0
        self._left_out = 0

    def handshake_done(self, peer: str, der: bytes) -> None:
        """Count it."""
        self._observer.handshake_done(peer, der)

    def handshake_failed(
        self, peer: str, reason: HandshakeReason, certificate: PeerCertificate | None
    ) -> None:
        """Count it, and log it unless many were logged just now."""
        self._observer.handshake_failed(peer, reason.value, certificate)
        now = self._clock.monotonic()
        if now >= self._window_ends:
            if self._left_out:
                log.warning("handshakes_failed_unlogged", count=self._left_out)
            self._window_ends = now + WINDOW_SECONDS
            self._logged = self._left_out = 0
        if self._logged >= LINES:
            self._left_out += 1
            return
        self._logged += 1
        log.warning(
            "handshake_failed",
            peer=peer,
            reason=reason.value,
            subject=certificate.subject if certificate else None,
            serial=certificate.serial if certificate else None,
            **({"detail": _WHAT_TO_DO[reason]} if reason in _WHAT_TO_DO else {}),
        )
