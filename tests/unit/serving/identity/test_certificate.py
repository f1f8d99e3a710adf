"""Certificates that name a device, and all the ways not to."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from facade.device import Device
from facade.errors import Denied, Invalid
from facade.reasons import Reason
from facade.serving.identity.certificate import (
    DeviceCA,
    DeviceCertificates,
    SpiffeRule,
    SubjectRule,
)
from tests.support.pki import (
    CLIENT_AUTH,
    SERVER_AUTH,
    TRUST_DOMAIN,
    Authority,
    Leaf,
    now,
    spiffe,
    subject,
)

CA = Authority.root()
RULE = SpiffeRule(TRUST_DOMAIN)


def certificates(*cas: Authority, fleets: tuple[str, ...] = ("*",)) -> DeviceCertificates:
    return DeviceCertificates([DeviceCA.from_pem(ca.pem, fleets) for ca in cas], RULE)


def refusal(leaf: Leaf, trusted: DeviceCertificates | None = None) -> str:
    with pytest.raises(Denied) as caught:
        (trusted or certificates(CA)).device(leaf.der)
    assert caught.value.reason is Reason.IDENTITY
    return caught.value.message


def test_a_device_is_what_its_certificate_says() -> None:
    leaf = CA.device("dev", "kiosk-7")
    assert certificates(CA).device(leaf.der) == Device(
        fleet="dev",
        name="kiosk-7",
        issuer="CN=Test CA",
        serial=leaf.serial,
        fingerprint=leaf.certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=leaf.certificate.not_valid_before_utc,
        not_after=leaf.certificate.not_valid_after_utc,
        trusted_until=leaf.certificate.not_valid_after_utc,
    )


def test_it_is_trusted_no_longer_than_a_ca_that_may_name_it() -> None:
    soon, later = now() + dt.timedelta(days=1), now() + dt.timedelta(days=9)
    ca = Authority.root("Ending CA", not_after=soon)
    leaf = ca.device("dev", "kiosk-7")
    assert certificates(ca).device(leaf.der).trusted_until == soon
    # Cross-signed: the same key in a longer-lived certificate, which may not name this fleet.
    longer = Authority.root("Ending CA", not_after=later, key=ca.key)
    both = [DeviceCA.from_pem(ca.pem), DeviceCA.from_pem(longer.pem, ["prod"])]
    trusted = DeviceCertificates(both, SpiffeRule(TRUST_DOMAIN))
    assert trusted.device(leaf.der).trusted_until == soon
    both[1] = DeviceCA.from_pem(longer.pem)
    trusted = DeviceCertificates(both, SpiffeRule(TRUST_DOMAIN))
    assert trusted.device(leaf.der).trusted_until == later


def test_no_spiffe_id() -> None:
    assert "no SPIFFE ID" in refusal(CA.device(uris=()))


def test_two_spiffe_ids() -> None:
    assert "several" in refusal(CA.device(uris=(spiffe("dev", "a"), spiffe("dev", "b"))))


def test_a_second_uri_that_is_no_spiffe_id_is_one_too_many() -> None:
    assert "several" in refusal(CA.device(uris=(spiffe("dev", "a"), "https://example.org/")))


@pytest.mark.parametrize(
    "uri",
    [
        spiffe("dev", "a", "other.example"),
        spiffe("dev", "a", "FLEET.example"),
        "spiffe://fleet.example/dev/a",
        "spiffe://fleet.example/fleet/dev/device/a/",
        "spiffe://fleet.example/fleet/dev/device/a?x",
        "https://fleet.example/fleet/dev/device/a",
        spiffe("snapshot", "a"),
        spiffe("../dev", "a"),
        spiffe("dev", "A"),
    ],
)
def test_another_identity_than_ours(uri: str) -> None:
    refusal(CA.device(uris=(uri,)))


def test_a_ca_naming_another_cas_fleet() -> None:
    other = Authority.root("Other CA")
    trusted = DeviceCertificates(
        [DeviceCA.from_pem(CA.pem, ("dev-*",)), DeviceCA.from_pem(other.pem, ("prod",))], RULE
    )
    assert trusted.device(CA.device("dev-7").der).fleet == "dev-7"
    assert trusted.device(other.device("prod").der).fleet == "prod"
    assert "may not name" in refusal(CA.device("prod"), trusted)
    assert "may not name" in refusal(other.device("dev-7"), trusted)


def test_a_foreign_ca_of_the_same_name_is_no_issuer() -> None:
    impostor = Authority.root("Test CA")
    assert impostor.issuer == CA.issuer
    assert "issuer is not among" in refusal(impostor.device())


def test_two_cas_of_one_name_are_told_apart_by_key() -> None:
    twin = Authority.root("Test CA")
    trusted = DeviceCertificates(
        [DeviceCA.from_pem(CA.pem, ("dev",)), DeviceCA.from_pem(twin.pem, ("prod",))], RULE
    )
    assert trusted.device(CA.device("dev").der).fleet == "dev"
    assert "may not name" in refusal(CA.device("prod"), trusted)


def test_an_intermediate_counts_from_the_bundle_and_not_from_the_wire() -> None:
    intermediate = CA.intermediate()
    leaf = intermediate.device()
    bundle = DeviceCA.from_pem(CA.pem + intermediate.pem)
    assert DeviceCertificates([bundle], RULE).device(leaf.der).issuer == "CN=Test Intermediate CA"
    assert "issuer is not among" in refusal(leaf)


@pytest.mark.parametrize("usages", [None, (SERVER_AUTH,)])
def test_a_certificate_that_is_not_for_clients(
    usages: tuple[x509.ObjectIdentifier, ...] | None,
) -> None:
    assert "clientAuth" in refusal(CA.device(usages=usages))


def test_further_usages_do_no_harm() -> None:
    leaf = CA.device(usages=(SERVER_AUTH, CLIENT_AUTH))
    assert certificates(CA).device(leaf.der).name == "kiosk-7"


@pytest.mark.parametrize("der", [b"", b"junk", CA.device().der[:-1]])
def test_bytes_that_are_no_certificate(der: bytes) -> None:
    with pytest.raises(Denied, match="cannot be read"):
        certificates(CA).device(der)


def test_the_answer_is_remembered_and_the_memory_bounded() -> None:
    trusted = DeviceCertificates([DeviceCA.from_pem(CA.pem)], RULE, remember=10)
    leaf = CA.device()
    first = trusted.device(leaf.der)
    assert trusted.device(leaf.der) is first
    for number in range(40):
        with pytest.raises(Denied):
            trusted.device(b"%d" % number)
    assert len(trusted._known) == 10
    assert trusted.device(leaf.der) == first


def test_a_refusal_is_remembered_but_never_the_same_exception_twice() -> None:
    trusted = certificates(CA)
    leaf = CA.device(uris=())
    errors = []
    for _ in range(2):
        with pytest.raises(Denied) as caught:
            trusted.device(leaf.der)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert errors[0].message == errors[1].message


def test_subject_fields_can_name_the_device() -> None:
    trusted = DeviceCertificates([DeviceCA.from_pem(CA.pem)], SubjectRule())
    leaf = CA.device(uris=(), subject=subject(O="Example", OU="dev", CN="kiosk-7"))
    assert str(trusted.device(leaf.der)) == "dev/kiosk-7"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"CN": "kiosk-7"}, "exactly one OU"),
        ({"OU": "dev"}, "exactly one CN"),
        ({"OU": "root", "CN": "kiosk-7"}, "does not fit"),
        ({"OU": "dev", "CN": "Kiosk 7"}, "does not fit"),
    ],
)
def test_subject_fields_that_do_not(fields: dict[str, str], words: str) -> None:
    trusted = DeviceCertificates([DeviceCA.from_pem(CA.pem)], SubjectRule())
    assert words in refusal(CA.device(uris=(), subject=subject(**fields)), trusted)


def test_a_subject_rule_of_unknown_fields() -> None:
    with pytest.raises(Invalid, match="subject field"):
        SubjectRule(fleet="ST")


@pytest.mark.parametrize("pem", [b"", b"junk"])
def test_a_ca_file_without_certificates(pem: bytes) -> None:
    with pytest.raises(Invalid, match="PEM"):
        DeviceCA.from_pem(pem)


def test_a_leaf_is_no_ca() -> None:
    with pytest.raises(Invalid, match="no CA"):
        DeviceCA.from_pem(CA.pem + CA.device().pem)


def test_der_is_no_pem(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="PEM"):
        DeviceCA.from_pem(CA.certificate.public_bytes(Encoding.DER))
