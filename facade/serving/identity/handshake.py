"""Why a handshake failed, in a word for metrics, and whose certificate it was.

Guarantees: `HandshakeReason` is a small closed set, so it may be a metric label. `PeerCertificate` is
bounded, whatever somebody presented. It was *not verified*: it is for logs, never for a decision.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from cryptography import x509

from facade.serving.identity.openssl import TlsError

_MAX_SUBJECT_CHARS = 256
_MAX_SERIAL_CHARS = 64
"""A proper one has at most 40 (RFC 5280, 4.1.2.2); of what nobody verified, no more goes into a log."""


class HandshakeReason(StrEnum):
    """What kept a client from completing the handshake."""

    NO_CERTIFICATE = "no-certificate"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    UNKNOWN_CA = "unknown-ca"
    WRONG_USAGE = "wrong-usage"
    BAD_CERTIFICATE = "bad-certificate"  # any other verdict on it
    CLIENT_REFUSED = "client-refused"  # the client sent an alert: it does not trust us
    CLIENT_CLOSED = "client-closed"
    NOT_TLS = "not-tls"
    PROTOCOL = "protocol"  # no common version, garbage, …
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"  # as many connections as the limits allow it, or all together
    PROXY_MISSING = "proxy-header-missing"  # a listed balancer came without its header
    PROXY_V1 = "proxy-v1"
    PROXY_MALFORMED = "proxy-malformed"  # or broken off
    PROXY_TIMEOUT = "proxy-timeout"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What an unverified certificate says about itself. For logs only.

    Arguments:
        subject: RFC 4514 string, clipped.
        serial: lower-case hex.
    """

    subject: str
    serial: str

    def __str__(self) -> str:
        return f"{self.subject} (serial {self.serial})"


class TlsHooks(Protocol):
    """Who wants to know about handshakes. Called on the event loop: must not block."""

    def handshake_done(self, peer: str, der: bytes) -> None:
        """`peer` (address:port) presented the verified certificate `der`."""
        ...

    def handshake_failed(
        self, peer: str, reason: HandshakeReason, certificate: PeerCertificate | None
    ) -> None:
        """`peer` did not get in; `certificate` is what it presented, where that is known."""
        ...


class NullHooks:
    """Nobody wants to know."""

    def handshake_done(self, peer: str, der: bytes) -> None:
        pass

    def handshake_failed(
        self, peer: str, reason: HandshakeReason, certificate: PeerCertificate | None
    ) -> None:
        pass


# X509_V_ERR_… of openssl/x509_vfy.h.
_VERDICTS = {
    2: HandshakeReason.UNKNOWN_CA,  # unable to get issuer certificate
    9: HandshakeReason.NOT_YET_VALID,
    10: HandshakeReason.EXPIRED,
    18: HandshakeReason.UNKNOWN_CA,  # self-signed leaf
    19: HandshakeReason.UNKNOWN_CA,  # self-signed certificate in the chain
    20: HandshakeReason.UNKNOWN_CA,  # unable to get local issuer certificate
    21: HandshakeReason.UNKNOWN_CA,  # unable to verify the leaf's signature
    26: HandshakeReason.WRONG_USAGE,
}
_NOT_TLS = frozenset(
    {"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG"}
)


def reason_for(error: TlsError) -> HandshakeReason:
    """The reason behind what `TlsSession.handshake` raised."""
    if error.verdict:  # its words may be of what led to it: of a signature, of an extension
        return _VERDICTS.get(error.verdict, HandshakeReason.BAD_CERTIFICATE)
    words = error.reason
    if words == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return HandshakeReason.NO_CERTIFICATE
    if "_ALERT_" in words:
        return HandshakeReason.CLIENT_REFUSED
    if words in _NOT_TLS:
        return HandshakeReason.NOT_TLS
    return HandshakeReason.PROTOCOL


def presented(der: bytes) -> PeerCertificate | None:
    """What a client presented, verified or not; None when there was nothing to be understood."""
    if not der:
        return None
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject = certificate.subject.rfc4514_string()
        serial = f"{certificate.serial_number:x}"[:_MAX_SERIAL_CHARS]
    except Exception:  # noqa: BLE001 - hostile bytes; cryptography raises many kinds
        return None
    return PeerCertificate(subject[:_MAX_SUBJECT_CHARS], serial)
