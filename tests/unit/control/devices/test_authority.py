"""The development CA: what it signs, and what it refuses to."""

import datetime as dt
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from facade.control.devices.authority import Authority, new_csr, new_key, read_csr
from facade.errors import Invalid
from facade.serving.identity.certificate import DeviceCA, DeviceCertificates, SpiffeRule
from tests.support import pki

NOW = pki.now().timestamp()
CA = Authority.create("Facade device CA", NOW)


def csr(
    key: CertificateIssuerPrivateKeyTypes, builder: x509.CertificateSigningRequestBuilder
) -> str:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def plain() -> x509.CertificateSigningRequestBuilder:
    return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))


def test_a_device_certificate_is_accepted_by_the_serving_side() -> None:
    key = new_key()
    certificate = CA.device("fleet.example", "dev", "kiosk-7", key.public_key(), NOW, 30)
    der = certificate.public_bytes(serialization.Encoding.DER)
    trusted = DeviceCertificates([DeviceCA.from_pem(CA.pem)], SpiffeRule("fleet.example"))
    device = trusted.device(der)
    assert str(device) == "dev/kiosk-7"
    assert device.issuer == CA.name
    assert device.not_before.timestamp() == NOW
    assert device.not_after - device.not_before == dt.timedelta(days=30)


def test_the_requests_own_names_and_extensions_are_ignored() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wishes = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(pki.subject(OU="prod", CN="admin"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(pki.spiffe("prod", "admin"))]
            ),
            critical=False,
        )
    )
    certificate = CA.device("fleet.example", "dev", "k", read_csr(csr(key, wishes)), NOW)
    assert "prod" not in certificate.subject.rfc4514_string()
    extensions = certificate.extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [pki.spiffe("dev", "k")]
    assert len(list(names)) == 1


@pytest.mark.parametrize(
    "key",
    [
        new_key(),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA-2048"],
)
def test_usual_kinds_of_key_are_accepted(key: CertificateIssuerPrivateKeyTypes) -> None:
    assert read_csr(csr(key, plain())) == key.public_key()


@pytest.mark.parametrize(
    ("key", "words"),
    [(rsa.generate_private_key(65537, 1024), "2048"), (dsa.generate_private_key(2048), "must be")],
    ids=["RSA-1024", "DSA"],
)
def test_other_keys_are_not(key: CertificateIssuerPrivateKeyTypes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        read_csr(csr(key, plain()))


def test_a_request_for_somebody_elses_key() -> None:
    mine = x509.load_pem_x509_csr(new_csr(new_key()).encode())
    theirs = x509.load_pem_x509_csr(new_csr(new_key()).encode())
    point = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    stolen = mine.public_bytes(serialization.Encoding.DER).replace(
        mine.public_key().public_bytes(*point),
        theirs.public_key().public_bytes(*point),
    )
    forged = x509.load_der_x509_csr(stolen).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(Invalid, match="signature"):
        read_csr(forged.decode())


def test_a_request_of_a_version_that_there_is_none_of() -> None:
    der = x509.load_pem_x509_csr(new_csr(new_key()).encode())
    odd = der.public_bytes(serialization.Encoding.DER).replace(
        b"\x02\x01\x00\x30", b"\x02\x01\x41\x30", 1
    )
    with pytest.raises(Invalid, match="no certificate request"):
        read_csr(ssl.DER_cert_to_PEM_cert(odd).replace("CERTIFICATE", "CERTIFICATE REQUEST"))


@pytest.mark.parametrize("text", ["", "junk", CA.pem.decode(), "é" * 10, "x" * 100_000])
def test_what_is_no_request(text: str) -> None:
    with pytest.raises(Invalid):
        read_csr(text)


def test_a_server_certificate_serves_its_names() -> None:
    key = new_key()
    hosts = ["localhost", "127.0.0.1", "[::1]", "facade.example", "localhost"]
    certificate = CA.server(hosts, key.public_key(), NOW)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [
        "localhost",
        "127.0.0.1",
        "::1",
        "facade.example",
    ]


@pytest.mark.parametrize("hosts", [[], ["bücher.example"]])
def test_impossible_server_names(hosts: list[str]) -> None:
    with pytest.raises(Invalid):
        CA.server(hosts, new_key().public_key(), NOW)


def test_openssl_agrees_with_both(tmp_path_factory: pytest.TempPathFactory) -> None:
    server_key, device_key = new_key(), new_key()
    server = pki.Leaf(CA.server(["localhost"], server_key.public_key(), NOW), server_key)
    certificate = CA.device("fleet.example", "dev", "k", device_key.public_key(), NOW)
    device = pki.Leaf(certificate, device_key)
    authority = pki.Authority(CA.certificate, CA.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        pki.client_context(authority, device).wrap_bio(
            to_client, to_server, server_hostname="localhost"
        ),
        pki.server_context(server, authority).wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert sides[1].getpeercert(binary_form=True) == device.der


def test_a_certificate_never_outlives_its_ca() -> None:
    certificate = CA.device("d.example", "dev", "k", new_key().public_key(), NOW, days=100_000)
    assert certificate.not_valid_after_utc == CA.certificate.not_valid_after_utc


def test_a_ca_is_read_back() -> None:
    again = Authority.load(CA.pem, CA.key_pem)
    assert again.certificate == CA.certificate
    assert again.name == "CN=Facade device CA"


def test_a_damaged_ca_is_refused() -> None:
    other = Authority.create("Other", NOW)
    with pytest.raises(Invalid, match="belong together"):
        Authority.load(CA.pem, other.key_pem)
    with pytest.raises(Invalid, match="cannot be read"):
        Authority.load(CA.pem, b"junk")
    rsa_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(Invalid, match="ECDSA"):
        Authority.load(CA.pem, rsa_key)
