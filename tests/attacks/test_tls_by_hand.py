"""Clients that no TLS library would make: nobody is let in who did not prove whose certificate it is.

What is relied on is OpenSSL's; it changes with every release of the package that brings it.
"""

import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from facade.serving.identity.openssl import TlsError
from tests.support import tls_by_hand as by_hand
from tests.support.pki import Authority
from tests.support.tls_by_hand import TlsByHand, certificates, extension, message, sized
from tests.support.tls_listener import tls_context

CA = Authority.root()
DEVICE, OTHER = CA.device(), CA.device(name="other")
CONTEXT = tls_context(CA.server(), CA)
CERTIFICATE = certificates(DEVICE.der)
UNEXPECTED, UNREADABLE, BAD_PROOF, NO_CERTIFICATE = 10, 50, 51, 116  # RFC 8446, 6.2


def client() -> TlsByHand:
    return TlsByHand(CONTEXT.session())


def proper(extensions: bytes = b"", psk: tuple[bytes, bytes] | None = None) -> TlsByHand:
    """One that does all that it must."""
    made = client()
    made.hello(extensions, psk)
    made.say(CERTIFICATE)
    made.say(made.proof(DEVICE.key))
    made.finish()
    return made


def test_a_proper_one_is_let_in() -> None:
    """So what the others are refused for is what they do."""
    made = proper()
    assert made.let_in
    made.send(by_hand.APPLICATION_DATA, b"hello")
    assert (made.alerts, made.resumed) == ([], False)


def _compressed() -> bytes:
    body = CERTIFICATE[4:]
    packed = b"\x00\x01" + len(body).to_bytes(3, "big") + sized(3, zlib.compress(body))
    return message(by_hand.COMPRESSED_CERTIFICATE, packed)


def _raw_key() -> bytes:
    key = DEVICE.key.public_key()
    return certificates(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _proof(made: TlsByHand) -> bytes:
    return made.proof(DEVICE.key)


Says = bytes | Callable[[TlsByHand], bytes]
ATTACKS: dict[str, tuple[list[Says], int]] = {
    "no certificate": ([certificates()], NO_CERTIFICATE),
    "no Certificate": ([TlsByHand.finished], UNEXPECTED),
    "no proof": ([CERTIFICATE, TlsByHand.finished], UNEXPECTED),
    "another's proof": ([CERTIFICATE, lambda made: made.proof(OTHER.key)], BAD_PROOF),
    "a second certificate": ([CERTIFICATE, certificates(OTHER.der)], UNEXPECTED),
    "the proof before the certificate": ([_proof], UNEXPECTED),
    "another's Finished": ([CERTIFICATE, _proof, message(by_hand.FINISHED, bytes(32))], BAD_PROOF),
    "a compressed certificate (RFC 8879)": ([_compressed()], UNEXPECTED),
    "a raw public key (RFC 7250)": ([_raw_key()], UNREADABLE),
}


@pytest.mark.parametrize(("said", "alert"), ATTACKS.values(), ids=ATTACKS.keys())
def test_without_a_proven_certificate_nobody_is_let_in(said: list[Says], alert: int) -> None:
    made = client()
    made.hello(extension(27, sized(1, b"\x00\x01")) + extension(19, sized(1, b"\x02")))
    for each in said:
        with suppress(TlsError):
            made.say(each if isinstance(each, bytes) else each(made))
    assert (made.let_in, made.alerts) == (False, [alert])


def test_nothing_is_asked_for_before_the_certificate() -> None:
    made = client()
    made.hello()
    with pytest.raises(TlsError):
        made.send(by_hand.APPLICATION_DATA, b"GET /v2/ HTTP/1.1\r\n\r\n")
    assert (made.let_in, made.alerts) == (False, [UNEXPECTED])


@pytest.mark.parametrize("early", [b"", extension(by_hand.EARLY_DATA)], ids=["", "early data"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_ticket_stands_for_nobody(which: int, early: bytes) -> None:
    """The right key for it, and its binder, do not help."""
    ticket = proper().ticket(which)
    made = client()
    made.hello(early, ticket)
    assert not made.resumed
    with pytest.raises(TlsError):
        made.finish()
    assert (made.let_in, made.alerts) == (False, [UNEXPECTED])
    again = proper(early, ticket)
    assert (again.let_in, again.resumed) == (True, False)


def test_a_certificate_is_not_changed_later() -> None:
    """Post-handshake authentication (RFC 8446, 4.6.2) is not asked for."""
    made = proper(extension(by_hand.POST_HANDSHAKE_AUTH))
    with pytest.raises(TlsError):
        made.send(by_hand.HANDSHAKE, certificates(OTHER.der))
    assert made.alerts == [UNEXPECTED]
