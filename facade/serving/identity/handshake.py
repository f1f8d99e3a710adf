"""Why a handshake failed, in a word for metrics, and whose certificate it was.

Guarantees: `HandshakeReason` is a small closed set, so it may be a metric label. `CertificateWatch`
sees the client's certificate also when OpenSSL refuses it, which Python's ssl offers no public
way to learn (TLS 1.3 sends it encrypted, and a refused one is not kept). Where the private hook
that it uses is absent, the certificate is simply not known; nothing else depends on it. What it
saw was *not verified*: it is for logs, never for a decision.
"""

import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cryptography import x509

_HANDSHAKE_RECORD = 22  # RFC 8446, 5.1: ContentType
_CERTIFICATE_MESSAGE = 11  # RFC 8446, 4: HandshakeType
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


# X509_V_ERR_… of openssl/x509_vfy.h; Python gives the number, not the name.
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


def reason_for(error: ssl.SSLError) -> HandshakeReason:
    """The reason behind what `do_handshake` raised."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERDICTS.get(error.verify_code, HandshakeReason.BAD_CERTIFICATE)
    words = error.reason or ""
    if words == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return HandshakeReason.NO_CERTIFICATE
    if "_ALERT_" in words:
        return HandshakeReason.CLIENT_REFUSED
    if words in _NOT_TLS:
        return HandshakeReason.NOT_TLS
    return HandshakeReason.PROTOCOL


class CertificateWatch:
    """Remembers the last client certificate that passed through an observed context.

    Handshake steps are synchronous: call `forget` before one and `seen` after it, and what is
    seen belongs to it.
    """

    def __init__(self) -> None:
        self._message = b""
        # What a connection is moved to once it is established. Its context has no message
        # callback, so that bulk records do not pay for one (3 % of a transfer's CPU).
        self.quiet = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def observe(self, context: ssl.SSLContext) -> None:
        """Have `context` tell this watch about the certificates of its future handshakes."""
        # The public class wraps the callback in enum conversions (10 µs a message); its base
        # class does not. Both are private: absent in some future Python, we know less.
        hook: Any = getattr(super(ssl.SSLContext, ssl.SSLContext), "_msg_callback", None)
        if hook is not None:
            hook.__set__(context, self._message_passed)

    def forget(self) -> None:
        """A handshake step begins."""
        self._message = b""

    def seen(self) -> PeerCertificate | None:
        """The certificate presented in the step, None when there was none to be understood."""
        der = _first_certificate(self._message)
        if not der:
            return None
        try:
            certificate = x509.load_der_x509_certificate(der)
            subject = certificate.subject.rfc4514_string()
            serial = f"{certificate.serial_number:x}"[:_MAX_SERIAL_CHARS]
        except Exception:  # noqa: BLE001 - hostile bytes; cryptography raises many kinds
            return None
        return PeerCertificate(subject[:_MAX_SUBJECT_CHARS], serial)

    def _message_passed(
        self, _: object, direction: str, version: int, record: int, kind: int, data: bytes
    ) -> None:
        if kind == _CERTIFICATE_MESSAGE and record == _HANDSHAKE_RECORD and direction == "read":
            self._message = data


def _first_certificate(message: bytes) -> bytes:
    """The leaf in a TLS 1.3 Certificate message (RFC 8446, 4.4.2), b"" when there is none."""
    context_length = message[4] if len(message) > 4 else 0
    at = 4 + 1 + context_length + 3  # header, context, length of the list
    length = int.from_bytes(message[at : at + 3], "big")
    der = message[at + 3 : at + 3 + length]
    return der if len(der) == length else b""
