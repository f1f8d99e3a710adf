"""What ends a certificate: time, the deny list, CRLs."""

import datetime as dt
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from facade.device import Device
from facade.errors import Denied, Invalid
from facade.reasons import Reason
from facade.serving.identity.certificate import DeviceCA, DeviceCertificates, SpiffeRule
from facade.serving.identity.revocation import Crl, check, crl_warnings, read_crls
from facade.wings import Revocations
from tests.support.pki import TRUST_DOMAIN, Authority, Leaf, now

CA = Authority.root()
LEAF = CA.device("dev", "kiosk-7")
CERTIFICATES = DeviceCertificates([DeviceCA.from_pem(CA.pem)], SpiffeRule(TRUST_DOMAIN))
NOTHING = Revocations()
NOW = now().timestamp()


def device(leaf: Leaf = LEAF) -> Device:
    return CERTIFICATES.device(leaf.der)


DEVICE = device()


def reason(revocations: Revocations = NOTHING, at: float = NOW, *crls: Crl) -> Reason | None:
    try:
        check(DEVICE, revocations, at, crls)
    except Denied as error:
        return error.reason
    return None


def test_a_good_certificate_passes() -> None:
    assert reason() is None


def test_a_certificate_ends_on_an_open_connection_too() -> None:
    assert reason(at=DEVICE.not_after.timestamp()) is None
    assert reason(at=DEVICE.not_after.timestamp() + 1) is Reason.IDENTITY
    assert reason(at=DEVICE.not_before.timestamp() - 1) is Reason.IDENTITY


def test_a_certificate_ends_with_the_ca_that_vouches_for_it() -> None:
    ends = NOW + 3600
    over = replace(DEVICE, trusted_until=dt.datetime.fromtimestamp(ends, dt.UTC))
    check(over, NOTHING, ends)
    with pytest.raises(Denied, match="CA that vouches") as caught:
        check(over, NOTHING, ends + 1)
    assert caught.value.reason is Reason.IDENTITY


@pytest.mark.parametrize(
    ("since", "refused"),
    [
        (NOW, True),
        (DEVICE.not_before.timestamp(), True),
        (DEVICE.not_before.timestamp() - 1, False),
    ],
    ids=["now", "as it began", "before it began"],
)
def test_a_revoked_device_is_refused_for_certificates_begun_before(
    since: float, refused: bool
) -> None:
    answer = reason(Revocations({("dev", "kiosk-7"): since}))
    assert answer is (Reason.DEVICE_REVOKED if refused else None)


def test_another_device_is_not_touched() -> None:
    assert reason(Revocations({("dev", "kiosk-8"): NOW, ("prod", "kiosk-7"): NOW})) is None


def test_one_certificate_is_revoked_by_issuer_and_serial() -> None:
    pairs = frozenset({("CN=Test CA", LEAF.serial)})
    assert reason(Revocations(certificates=pairs)) is Reason.DEVICE_REVOKED
    other = frozenset({("CN=Other CA", LEAF.serial), ("CN=Test CA", "1")})
    assert reason(Revocations(certificates=other)) is None


def test_a_crl_is_honoured() -> None:
    (crl,) = read_crls(CA.crl(LEAF), [CA.certificate])
    assert reason(NOTHING, NOW, crl) is Reason.DEVICE_REVOKED
    assert reason(NOTHING, NOW, *read_crls(CA.crl(CA.device()), [CA.certificate])) is None


def test_a_crl_of_another_ca_says_nothing_about_ours() -> None:
    other = Authority.root("Other CA")
    (crl,) = read_crls(other.crl(LEAF), [other.certificate])
    assert not crl.revokes(DEVICE)


def test_a_crl_in_der() -> None:
    der = x509.load_pem_x509_crl(CA.crl(LEAF)).public_bytes(Encoding.DER)
    assert read_crls(der, [CA.certificate])[0].serials == {LEAF.serial}


def test_every_crl_of_a_file_counts() -> None:
    issuing = CA.intermediate()
    issuers = [CA.certificate, issuing.certificate]
    both = (
        b"as openssl crl -text writes it:\n"
        + CA.crl()
        + b"# the issuing CA's own:\n"
        + issuing.crl(issuing.device(), LEAF)
    )
    first, second = read_crls(both, issuers)
    assert (first.issuer, second.issuer) == (CA.issuer, issuing.issuer)
    assert (len(first.serials), len(second.serials)) == (0, 2)
    with pytest.raises(Invalid, match="not signed"):
        read_crls(CA.crl() + Authority.root("Other CA").crl(), issuers)
    with pytest.raises(Invalid, match="no certificate revocation list"):
        read_crls(CA.crl() + issuing.crl()[:-40], issuers)


@pytest.mark.parametrize("signer", [Authority.root("Other CA"), Authority.root("Test CA")])
def test_a_crl_that_somebody_else_signed(signer: Authority) -> None:
    with pytest.raises(Invalid, match="not signed"):
        read_crls(signer.crl(LEAF), [CA.certificate])


def odd_version(crl: bytes) -> bytes:
    """The list with a version that there is none of (RFC 5280, 5.1.2.1: 1 stands for v2)."""
    der = x509.load_pem_x509_crl(crl).public_bytes(Encoding.DER)
    return der.replace(b"\x02\x01\x01\x30", b"\x02\x01\x41\x30", 1)


@pytest.mark.parametrize(
    "data", [b"", b"junk", b"-----BEGIN X509 CRL-----\n", CA.pem, odd_version(CA.crl())]
)
def test_what_is_no_crl(data: bytes) -> None:
    with pytest.raises(Invalid, match="no certificate revocation list"):
        read_crls(data, [CA.certificate])


def test_a_delta_crl_is_not_taken_for_a_whole_one() -> None:
    delta = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(CA.certificate.subject)
        .last_update(now())
        .next_update(now() + dt.timedelta(days=1))
        .add_extension(x509.DeltaCRLIndicator(1), critical=True)
        .sign(CA.key, hashes.SHA256())
    )
    with pytest.raises(Invalid, match="critical"):
        read_crls(delta.public_bytes(Encoding.PEM), [CA.certificate])


def test_a_stale_crl_warns_a_day_ahead_and_refuses_only_when_told_to() -> None:
    due = now() + dt.timedelta(days=2)
    (crl,) = read_crls(CA.crl(next_update=due), [CA.certificate])
    at = due.timestamp()
    assert crl_warnings([crl], NOW) == []
    assert "due for renewal" in crl_warnings([crl], at - 3600)[0]
    assert "overdue" in crl_warnings([crl], at + 1)[0]
    check(DEVICE, NOTHING, at + 1, [crl])
    with pytest.raises(Denied, match="out of date"):
        check(DEVICE, NOTHING, at + 1, [replace(crl, refuse_stale=True)])
    check(DEVICE, NOTHING, at, [replace(crl, refuse_stale=True)])
    check(DEVICE, NOTHING, at + 1, [replace(crl, refuse_stale=True, issuer="CN=Other CA")])
