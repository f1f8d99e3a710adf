"""The certificates that tests build on, judged by OpenSSL itself."""

import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL import crypto

from tests.support.pki import (
    SERVER_AUTH,
    Authority,
    Leaf,
    client_context,
    now,
    server_context,
    subject,
)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> bytes:
    """Run a TLS handshake in memory; the peer certificate that the server saw, in DER."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_side = server.wrap_bio(to_server, to_client, server_side=True)
    client_side = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(4):
        for side in (client_side, server_side):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return server_side.getpeercert(binary_form=True) or b""


def verdict(leaf: Leaf, *trusted: Authority) -> str:
    store = crypto.X509Store()
    for authority in trusted:
        store.add_cert(crypto.X509.from_cryptography(authority.certificate))
    chain = [crypto.X509.from_cryptography(certificate) for certificate in leaf.chain]
    certificate = crypto.X509.from_cryptography(leaf.certificate)
    try:
        crypto.X509StoreContext(store, certificate, chain).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return "ok"


def test_a_device_is_accepted_by_a_server_that_trusts_its_authority() -> None:
    ca = Authority.root()
    device = ca.device("dev", "kiosk-7")
    server = server_context(ca.server(), ca)
    assert handshake(server, client_context(ca, device)) == device.der


@pytest.mark.parametrize("host", ["facade.example", "192.0.2.7"])
def test_a_server_certificate_names_its_hosts_and_no_other(host: str) -> None:
    ca = Authority.root()
    server = server_context(ca.server(host))
    handshake(server, client_context(ca), host)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, client_context(ca), "other.example")


def test_a_device_of_an_intermediate_carries_its_chain() -> None:
    root = Authority.root()
    device = root.intermediate().device()
    assert verdict(device, root) == "ok"
    assert len(x509.load_pem_x509_certificates(device.pem)) == 2


def test_each_flaw_is_the_flaw_it_says() -> None:
    ca = Authority.root()
    assert verdict(ca.device(), ca) == "ok"
    assert "expired" in verdict(ca.expired_device(), ca)
    assert "issuer certificate" in verdict(ca.device(), Authority.root())
    assert "not yet valid" in verdict(ca.device(not_before=now() + dt.timedelta(days=1)), ca)
    server = server_context(ca.server(), ca)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable|unsupported"):
        handshake(server, client_context(ca, ca.device(usages=(SERVER_AUTH,))))


def uris(leaf: Leaf) -> list[str]:
    names = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def test_the_spiffe_id_can_be_given_missing_or_doubled() -> None:
    ca = Authority.root()
    assert uris(ca.device("dev", "k")) == ["spiffe://fleet.example/fleet/dev/device/k"]
    assert uris(ca.device(uris=("spiffe://a/x", "spiffe://a/y"))) == [
        "spiffe://a/x",
        "spiffe://a/y",
    ]
    with pytest.raises(x509.ExtensionNotFound):
        uris(ca.device(uris=()))


def test_a_subject_can_be_chosen() -> None:
    leaf = Authority.root().device(uris=(), subject=subject(OU="dev", CN="kiosk-7"))
    assert leaf.certificate.subject.rfc4514_string() == "CN=kiosk-7,OU=dev"


def test_a_crl_is_signed_by_its_authority_and_lists_the_serial() -> None:
    ca = Authority.root()
    leaf = ca.device()
    crl = x509.load_pem_x509_crl(ca.crl(leaf))
    assert crl.is_signature_valid(ca.key.public_key())
    assert crl.get_revoked_certificate_by_serial_number(leaf.certificate.serial_number)


def test_keys_are_written_for_their_owner_only(tmp_path: Path) -> None:
    files = Authority.root().device().write(tmp_path)
    assert files.certificate.name == "client.cert"
    assert files.key.stat().st_mode & 0o777 == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(files.certificate, files.key)
