"""Handshakes in memory: what is said of a failed one."""

import ssl

import pytest
from cryptography import x509

from facade.serving.identity.handshake import (
    HandshakeReason,
    PeerCertificate,
    presented,
    reason_for,
)
from facade.serving.identity.openssl import TlsError
from tests.support.pki import SERVER_AUTH, Authority, Leaf, client_context, now
from tests.support.tls_listener import tls_context
from tests.support.tls_memory import in_memory

CA = Authority.root()
OTHER = Authority.root("Other CA")
SERVER = tls_context(CA.server(), CA)


def fail(client: ssl.SSLContext) -> tuple[HandshakeReason, PeerCertificate | None]:
    """What a server says of a handshake that does not succeed."""
    sides = in_memory(SERVER, client)
    try:
        sides.handshake()
    except TlsError as error:
        return reason_for(error), presented(sides.server.presented)
    except ssl.SSLError:  # the client's: it said so
        sides.pass_on()
        with pytest.raises(TlsError) as caught:
            sides.server.handshake()
        return reason_for(caught.value), presented(sides.server.presented)
    raise AssertionError("the handshake succeeded")


def test_of_an_endless_serial_a_log_gets_little() -> None:
    """Nobody verified it, and everybody may send one of 100 KiB."""
    leaf = OTHER.device()
    serial = b"\x02\x82\x4e\x21\x01" + b"\x11" * 20_000
    tbs = leaf.certificate.tbs_certificate_bytes
    at = tbs.index(b"\xa0\x03\x02\x01\x02") + 5
    inner = tbs[4 if tbs[1] == 0x82 else 3 : at] + serial + tbs[at + 2 + tbs[at + 1] :]
    tbs = b"\x30\x82" + len(inner).to_bytes(2, "big") + inner
    rest = leaf.der[leaf.der.index(leaf.certificate.tbs_certificate_bytes) :]
    rest = rest[len(leaf.certificate.tbs_certificate_bytes) :]
    der = b"\x30\x82" + len(tbs + rest).to_bytes(2, "big") + tbs + rest
    assert x509.load_der_x509_certificate(der).serial_number > 2**100_000
    seen = presented(der)
    assert seen is not None
    assert len(seen.serial) <= 64


def forged() -> Leaf:
    """Signed by nobody: the signature is another one's."""
    leaf = CA.device()
    der = leaf.der[:-1] + bytes([leaf.der[-1] ^ 1])
    return Leaf(x509.load_der_x509_certificate(der), leaf.key)


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (CA.expired_device(), HandshakeReason.EXPIRED),
        (CA.device(not_before=now().replace(year=2090), not_after=now().replace(year=2091)),
         HandshakeReason.NOT_YET_VALID),
        (OTHER.device(), HandshakeReason.UNKNOWN_CA),
        (Authority.root("Test CA").device(), HandshakeReason.UNKNOWN_CA),
        (CA.device(usages=(SERVER_AUTH,)), HandshakeReason.WRONG_USAGE),
        (forged(), HandshakeReason.BAD_CERTIFICATE),
    ],
    ids=["expired", "not yet valid", "other CA", "CA of the same name", "usage", "forged"],
)  # fmt: skip
def test_a_refused_certificate_is_named(leaf: Leaf, reason: HandshakeReason) -> None:
    expected = PeerCertificate("CN=dev kiosk-7", leaf.serial)
    assert fail(client_context(CA, leaf)) == (reason, expected)
    assert leaf.serial in str(expected)


def test_no_certificate() -> None:
    assert fail(client_context(CA)) == (HandshakeReason.NO_CERTIFICATE, None)


def test_a_client_that_does_not_trust_us() -> None:
    assert fail(client_context(OTHER, CA.device()))[0] is HandshakeReason.CLIENT_REFUSED


def test_an_old_protocol_version() -> None:
    client = client_context(CA, CA.device())
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert fail(client) == (HandshakeReason.PROTOCOL, None)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n" * 10])
def test_another_protocol_altogether(said: bytes) -> None:
    side = SERVER.session()
    side.receive(memoryview(said), len(said))
    with pytest.raises(TlsError) as caught:
        side.handshake()
    assert reason_for(caught.value) is HandshakeReason.NOT_TLS


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80", bytes(100), OTHER.device().der[:-1]])
def test_a_mangled_certificate_is_just_not_known(der: bytes) -> None:
    assert presented(der) is None
