"""A development certificate authority: ECDSA P-256, its key in a file.

Guarantees: what it signs says what *it* was told: of a certificate request only the public key is
used, after the request's own signature was checked; subject, alternative names and
extensions in it are ignored. Serials are 159 random bits. Device certificates carry exactly one
SPIFFE ID and clientAuth; server certificates their names and serverAuth. Does not replace an
organisation's PKI: its key lies on a disk, and it has no CRL (the deny list stands in).
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from facade.device import spiffe_id
from facade.errors import Invalid

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
DEVICE_DAYS = 30
"""Short: the deny list has to remember a revoked device only in spirit, not for a decade."""
MAX_CSR_BYTES = 64 * 1024
_MIN_RSA_BITS = 2048

_PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, common_name: str, now: float) -> Self:
        """A new self-signed CA, valid from `now` (Unix seconds)."""
        key = new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        builder = builder.add_extension(_key_usage(authority=True), True)
        builder = _identifiers(builder, key.public_key(), key.public_key())
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> Self:
        """Read both. Raises Invalid when they are damaged or do not belong together."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise Invalid("The CA's certificate or key cannot be read (PEM expected).") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Invalid("A development CA's key is ECDSA.")
        if key.public_key() != certificate.public_key():
            raise Invalid("The CA's certificate and key do not belong together.")
        return cls(certificate, key)

    @property
    def name(self) -> str:
        """RFC 4514 string of its subject: the `issuer` of its certificates."""
        return self.certificate.subject.rfc4514_string()

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return certificate_pem(self.certificate)

    @property
    def key_pem(self) -> bytes:
        """Its key, unencrypted: for a file of mode 0600."""
        return key_pem(self.key)

    def server(
        self, hosts: Iterable[str], key: _PublicKey, now: float, days: int = SERVER_DAYS
    ) -> x509.Certificate:
        """A server certificate for host names and addresses.

        Raises Invalid for a name that cannot stand in a certificate.
        """
        names = [_host_name(host) for host in dict.fromkeys(hosts)]
        if not names:
            raise Invalid("A server certificate needs at least one name.")
        return self._sign(
            "Facade device port", x509.SubjectAlternativeName(names), "server", key, now, days
        )

    def device(
        self,
        trust_domain: str,
        fleet: str,
        name: str,
        key: _PublicKey,
        now: float,
        days: float = DEVICE_DAYS,
    ) -> x509.Certificate:
        """A device certificate, valid from the whole second `now` for `days`."""
        identity = x509.UniformResourceIdentifier(spiffe_id(trust_domain, fleet, name))
        alternative = x509.SubjectAlternativeName([identity])
        return self._sign(f"{fleet} {name}"[:64], alternative, "device", key, now, days)

    def _sign(
        self,
        common_name: str,
        names: x509.SubjectAlternativeName,
        role: str,
        key: _PublicKey,
        now: float,
        days: float,
    ) -> x509.Certificate:
        usage = {
            "server": ExtendedKeyUsageOID.SERVER_AUTH,
            "device": ExtendedKeyUsageOID.CLIENT_AUTH,
        }[role]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        end = self.certificate.not_valid_after_utc
        builder = _builder(subject, self.certificate.subject, key, now, days, at_most=end)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(_key_usage(authority=False), True)
            .add_extension(x509.ExtendedKeyUsage([usage]), False)
            .add_extension(names, False)
        )
        builder = _identifiers(builder, key, self.key.public_key())
        return builder.sign(self.key, hashes.SHA256())


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_csr(key: ec.EllipticCurvePrivateKey) -> str:
    """A certificate request for `key`, PEM. Who asks is said beside it, not in it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def read_csr(pem: str) -> _PublicKey:
    """The public key of a certificate request whose signature proves its possession.

    Raises Invalid when it is none, its signature is wrong, or its key is of a kind or size
    that is not accepted.
    """
    if len(pem) > MAX_CSR_BYTES:
        raise Invalid("The certificate request is too long (64 KiB at most).")
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        proven = csr.is_signature_valid
        key = csr.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Invalid("That is no certificate request in PEM (PKCS #10).") from error
    if not proven:
        raise Invalid("The certificate request's signature does not match its key.")
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise Invalid("An RSA key must have at least 2048 bits.")
    if not isinstance(key, (ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, rsa.RSAPublicKey)):
        raise Invalid("The key must be ECDSA, Ed25519 or RSA.")
    return key


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as unencrypted PKCS #8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise Invalid(f"{host!r} cannot stand in a certificate.") from error


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: _PublicKey,
    now: float,
    days: float,
    at_most: dt.datetime | None = None,
) -> x509.CertificateBuilder:
    start = dt.datetime.fromtimestamp(int(now), dt.UTC)  # X.509 knows whole seconds
    end = start + dt.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(min(end, at_most) if at_most else end)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _identifiers(
    builder: x509.CertificateBuilder, key: _PublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key), critical=False
    ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
