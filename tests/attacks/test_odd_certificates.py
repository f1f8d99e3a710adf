"""A device CA that signs nonsense: whatever it is, the answer is a refusal, not a defect."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from facade.errors import Denied
from facade.reasons import Reason
from facade.serving.identity.certificate import DeviceCA, DeviceCertificates, SpiffeRule
from tests.support.pki import TRUST_DOMAIN, Authority

CA = Authority.root()
SIGNED_PART = CA.device().certificate.tbs_certificate_bytes
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
VERSION_AT = SIGNED_PART.index(bytes.fromhex("a003020102")) + 4


def element(tag: int, content: bytes) -> bytes:
    """One DER element."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def signed(part: bytes) -> bytes:
    """A certificate over whatever `part` is, with a good signature."""
    signature = CA.key.sign(part, ec.ECDSA(hashes.SHA256()))
    return element(0x30, part + ECDSA_WITH_SHA256 + element(0x03, b"\0" + signature))


def read(part: bytes) -> Denied | None:
    certificates = DeviceCertificates([DeviceCA.from_pem(CA.pem)], SpiffeRule(TRUST_DOMAIN))
    try:
        certificates.device(signed(part))
    except Denied as error:
        assert error.reason is Reason.IDENTITY
        return error
    return None


def test_the_forge_makes_certificates() -> None:
    assert read(SIGNED_PART) is None


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.integers(4, len(SIGNED_PART) - 1), st.integers(0, 255), max_size=3))
@example({VERSION_AT: 65})  # version 66
def test_a_few_bytes_changed_before_signing(changes: dict[int, int]) -> None:
    part = bytearray(SIGNED_PART)
    for at, byte in changes.items():
        part[at] = byte
    read(bytes(part))


def test_a_version_that_does_not_exist() -> None:
    part = bytearray(SIGNED_PART)
    part[VERSION_AT] = 65
    assert "cannot be read" in str(read(bytes(part)))
