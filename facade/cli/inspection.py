"""What a certificate is and whether the device port would let it in, explained without a server.

Guarantees: the verdict is made by the same code that the device port uses (`serving.identity`), after
OpenSSL's own check of the chain, whose words it gives. Does not know the deny list, which is the
server's: a certificate that is let in here may have been revoked there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from OpenSSL import crypto

from facade.cli.usage import Usage
from facade.errors import Denied
from facade.serving.identity.certificate import (
    UNREADABLE,
    DeviceCA,
    DeviceCertificates,
    IdentityRule,
)
from facade.serving.identity.revocation import Crl, check, read_crls
from facade.serving.identity.tls import DeviceCAFile, revoked_cas
from facade.wings import Revocations

_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Inspection:
    """A certificate, explained.

    Arguments:
        names: its subject alternative names.
        device: FLEET/NAME when the verdict is good.
        verdict: one sentence.
    """

    subject: str
    issuer: str
    serial: str
    not_before: str
    not_after: str
    names: tuple[str, ...]
    device: str | None
    ok: bool
    verdict: str


def inspect_certificate(
    path: Path, files: Sequence[DeviceCAFile], rule: IdentityRule, *, now: float
) -> Inspection:
    """Explain the certificate in a file (PEM or DER).

    Arguments:
        files: the device CAs, with the fleets that they may name and their CRLs.
        now: Unix seconds.

    Raises Usage when a file cannot be read, Invalid when it is not what it should be.
    """
    certificate = read_certificate(path)
    cas = [DeviceCA.from_pem(_read(entry.file), entry.fleets) for entry in files]
    crls: list[Crl] = []
    for entry, ca in zip(files, cas, strict=True):
        if entry.crl is not None:
            stale = entry.refuse_stale_crl
            crls += read_crls(_read(entry.crl), ca.certificates, refuse_stale=stale)
    device, verdict = None, "It chains to the device CA, is in force, and names a device."
    try:
        _check_chain(certificate, cas, now)
        revoked = revoked_cas(cas, crls)
        known = DeviceCertificates([ca.without(revoked) for ca in cas], rule)
        found = known.device(_der(certificate))
        check(found, Revocations(), now, crls)
        device = str(found)
    except Denied as error:
        verdict = error.message
    return Inspection(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_before=_moment(certificate.not_valid_before_utc),
        not_after=_moment(certificate.not_valid_after_utc),
        names=_names(certificate),
        device=device,
        ok=device is not None,
        verdict=verdict,
    )


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a file, PEM or DER. Raises Usage."""
    data = _read(path)
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except UNREADABLE as error:
        raise Usage(f"{path} is no certificate in PEM or DER.") from error


def _check_chain(certificate: x509.Certificate, cas: Sequence[DeviceCA], now: float) -> None:
    """OpenSSL's verdict on signatures and validity, as at the handshake. Raises Denied."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(datetime.fromtimestamp(now, UTC))
    for one in dict.fromkeys(each for ca in cas for each in ca.certificates):
        store.add_cert(crypto.X509.from_cryptography(one))
    context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(certificate))
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        raise Denied(f"The handshake would fail: {error}.") from error


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(str(name.value) for name in found.value)


def _der(certificate: x509.Certificate) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, crypto.X509.from_cryptography(certificate))


def _moment(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}.") from error
