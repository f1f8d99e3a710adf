"""Certificates for tests: authorities, intermediates, server and device certificates, CRLs.

Guarantees: ECDSA P-256 throughout; every default is what a careful PKI would issue (SKI, AKI, key
usages, one SPIFFE ID, short validity), so that a test changes exactly the one thing it is about.
Does not share any code with `facade.control.devices`: the fake must not repeat its mistakes.

    ca = Authority.root()
    kiosk = ca.device("dev", "kiosk-7")
    kiosk.write(tmp_path)                       # client.cert, client.key
    context = client_context(server_ca, kiosk)  # for aiohttp, ssl
"""

import datetime as dt
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support import x509_parts
from tests.support.x509_parts import now

__all__ = [
    "CLIENT_AUTH",
    "SERVER_AUTH",
    "TRUST_DOMAIN",
    "Authority",
    "Files",
    "Leaf",
    "client_context",
    "load_identity",
    "now",
    "server_context",
    "spiffe",
    "subject",
]

TRUST_DOMAIN = "fleet.example"
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH

_DAY = dt.timedelta(days=1)


def spiffe(fleet: str, name: str, trust_domain: str = TRUST_DOMAIN) -> str:
    """The SPIFFE ID of a device."""
    return f"spiffe://{trust_domain}/fleet/{fleet}/device/{name}"


@dataclass(frozen=True)
class Files:
    """Where a certificate (with its chain) and its key were written."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Leaf:
    """An end-entity certificate, its key, and the intermediates that it is sent with."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate and its chain."""
        return b"".join(map(x509_parts.pem, (self.certificate, *self.chain)))

    @property
    def key_pem(self) -> bytes:
        return x509_parts.key_pem(self.key)

    @property
    def serial(self) -> str:
        """As `facade.device.Device.serial` has it."""
        return f"{self.certificate.serial_number:x}"

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, folder: Path, stem: str = "client") -> Files:
        """Write `<stem>.cert` and `<stem>.key`: with "client", the names podman looks for."""
        folder.mkdir(parents=True, exist_ok=True)
        files = Files(folder / f"{stem}.cert", folder / f"{stem}.key")
        files.certificate.write_bytes(self.pem)
        files.key.write_bytes(self.key_pem)
        files.key.chmod(0o600)
        return files


@dataclass(frozen=True)
class Authority:
    """A certificate authority; `chain` leads from itself (if no root) up to below the root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def root(
        cls,
        name: str = "Test CA",
        *,
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Self:
        """A self-signed root; with `key`, one that stands beside another of the same name."""
        key = key or x509_parts.new_key()
        subject = x509_parts.named(name)
        builder = x509_parts.builder(subject, subject, key, not_before, not_after, days=3650)
        builder = x509_parts.as_authority(builder, key, key, path_length=None)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def intermediate(self, name: str = "Test Intermediate CA") -> "Authority":
        """An authority below this one."""
        key = x509_parts.new_key()
        builder = x509_parts.builder(
            x509_parts.named(name), self.certificate.subject, key, None, None, days=1000
        )
        builder = x509_parts.as_authority(builder, key, self.key, path_length=0)
        certificate = builder.sign(self.key, hashes.SHA256())
        return Authority(certificate, key, (certificate, *self.chain))

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return x509_parts.pem(self.certificate)

    @property
    def issuer(self) -> str:
        """As `facade.device.Device.issuer` has it, for what this authority issues."""
        return self.certificate.subject.rfc4514_string()

    def write(self, folder: Path, name: str = "ca.crt") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_bytes(self.pem)
        return path

    def server(self, *hosts: str) -> Leaf:
        """A server certificate for host names and IP addresses (default: localhost)."""
        return self.issue(
            "Test server",
            hosts=hosts or ("localhost", "127.0.0.1", "::1"),
            usages=(SERVER_AUTH,),
        )

    def device(
        self,
        fleet: str = "dev",
        name: str = "kiosk-7",
        *,
        trust_domain: str = TRUST_DOMAIN,
        uris: Sequence[str] | None = None,
        subject: x509.Name | None = None,
        usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT_AUTH,),
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
    ) -> Leaf:
        """A device certificate.

        Arguments:
            uris: URI SANs instead of the one SPIFFE ID; () = no SAN at all.
            usages: extended key usages; None = no such extension.
        """
        return self.issue(
            f"{fleet} {name}",
            uris=(spiffe(fleet, name, trust_domain),) if uris is None else uris,
            subject=subject,
            usages=usages,
            not_before=not_before,
            not_after=not_after,
        )

    def expired_device(self, fleet: str = "dev", name: str = "kiosk-7") -> Leaf:
        """A device certificate that ended yesterday."""
        return self.device(fleet, name, not_before=now() - 30 * _DAY, not_after=now() - _DAY)

    def issue(
        self,
        common_name: str,
        *,
        hosts: Iterable[str] = (),
        uris: Iterable[str] = (),
        subject: x509.Name | None = None,
        usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT_AUTH,),
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
    ) -> Leaf:
        """Any end-entity certificate."""
        key = x509_parts.new_key()
        builder = x509_parts.builder(
            subject if subject is not None else x509_parts.named(common_name),
            self.certificate.subject,
            key,
            not_before,
            not_after,
            days=30,
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509_parts.key_usage(authority=False), True)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), False)
        names = [*map(x509_parts.host_name, hosts), *map(x509.UniformResourceIdentifier, uris)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        builder = x509_parts.key_identifiers(builder, key, self.key)
        return Leaf(builder.sign(self.key, hashes.SHA256()), key, self.chain)

    def crl(
        self,
        *revoked: "Leaf | Authority",
        last_update: dt.datetime | None = None,
        next_update: dt.datetime | None = None,
    ) -> bytes:
        """A signed CRL (PEM) that lists `revoked`."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(last_update or now() - _DAY)
            .next_update(next_update or now() + 7 * _DAY)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for leaf in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(leaf.certificate.serial_number)
                .revocation_date(now() - _DAY)
                .build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def client_context(
    server_ca: Authority | None, leaf: Leaf | None = None, *, check_hostname: bool = True
) -> ssl.SSLContext:
    """A client's context: trusts `server_ca` alone (None = trusts anybody), presents `leaf`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if server_ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.check_hostname = check_hostname
        context.load_verify_locations(cadata=server_ca.pem.decode())
    if leaf is not None:
        load_identity(context, leaf)
    return context


def server_context(leaf: Leaf, client_ca: Authority | None = None) -> ssl.SSLContext:
    """A plain TLS 1.3 server context; with `client_ca` it demands a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca.pem.decode())
    load_identity(context, leaf)
    return context


def load_identity(context: ssl.SSLContext, leaf: Leaf) -> None:
    """Give `context` a certificate and key (the ssl module reads them from files only)."""
    with tempfile.TemporaryDirectory() as folder:
        files = leaf.write(Path(folder))
        context.load_cert_chain(files.certificate, files.key)


def subject(**fields: str) -> x509.Name:
    """A subject of short names: `subject(OU="dev", CN="kiosk-7")`."""
    oids = {
        "CN": NameOID.COMMON_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "O": NameOID.ORGANIZATION_NAME,
        "serialNumber": NameOID.SERIAL_NUMBER,
    }
    return x509.Name([x509.NameAttribute(oids[field], text) for field, text in fields.items()])
