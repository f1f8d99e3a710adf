"""A verified peer certificate → `Device`.

Guarantees: a `Device` comes only from a certificate whose signature one of the configured CA
certificates made (tried by key with `verify_directly_issued_by`, never believed by name), for
client authentication, with exactly one identity by the configured rule, of a fleet that
this CA may name. Everything else is `Denied(IDENTITY)` in words. Does not check the
validity period or revocation: those change with time and are `revocation.check`'s, on every
request. Nothing above the issuer counts: every configured CA certificate is an anchor (see `tls`), and
when it ends, what it issued does too (`Device.trusted_until`).
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from facade.device import (
    SUBJECT_FIELDS,
    Device,
    identity_fields,
    parse_fleet,
    parse_name,
    parse_spiffe_id,
)
from facade.errors import Denied, Invalid
from facade.reasons import Reason

UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
"""All that cryptography raises for bytes that are no proper certificate."""
MAX_REMEMBERED = 16_384
"""Devices remembered by certificate: about 1.5 KiB each."""


def _denied(message: str) -> Denied:
    return Denied(message, reason=Reason.IDENTITY)


class IdentityRule(Protocol):
    """Where in a certificate the fleet and the device's name stand."""

    def identify(self, certificate: x509.Certificate) -> tuple[str, str]:
        """The (fleet, name). Raises Denied (IDENTITY)."""
        ...


@dataclass(frozen=True, slots=True)
class SpiffeRule:
    """Exactly one URI SAN, `spiffe://<trust_domain>/fleet/<fleet>/device/<name>`.

    An X.509-SVID has exactly one URI SAN (SPIFFE X.509-SVID, 2): a second one, of whatever
    scheme, makes it ambiguous whom the certificate names.
    """

    trust_domain: str

    def identify(self, certificate: x509.Certificate) -> tuple[str, str]:
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            uris: list[str] = []
        else:
            uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        if not uris:
            raise _denied("The certificate has no SPIFFE ID (a URI subject alternative name).")
        if len(uris) > 1:
            raise _denied("The certificate has several URI names; it must have one SPIFFE ID.")
        return parse_spiffe_id(uris[0], self.trust_domain)


_OIDS = {
    "CN": NameOID.COMMON_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
}
assert _OIDS.keys() == set(SUBJECT_FIELDS)


@dataclass(frozen=True, slots=True)
class SubjectRule:
    """Fleet and name from two subject fields, each present exactly once, for existing PKIs.

    Arguments:
        fleet, name: of `device.SUBJECT_FIELDS`.
    """

    fleet: str = "OU"
    name: str = "CN"

    def __post_init__(self) -> None:
        for field in (self.fleet, self.name):
            if field not in SUBJECT_FIELDS:
                raise Invalid(f"A subject field is one of {', '.join(SUBJECT_FIELDS)}.")

    def identify(self, certificate: x509.Certificate) -> tuple[str, str]:
        fleet, name = self._field(certificate, self.fleet), self._field(certificate, self.name)
        try:
            return parse_fleet(fleet), parse_name(name, "device name")
        except Invalid as error:
            raise _denied(f"The certificate's subject does not fit: {error.message}") from error

    @staticmethod
    def _field(certificate: x509.Certificate, field: str) -> str:
        values = certificate.subject.get_attributes_for_oid(_OIDS[field])
        if len(values) != 1 or not isinstance(values[0].value, str):
            raise _denied(f"The certificate's subject must have exactly one {field}.")
        return values[0].value


def identity_rule(setting: str, trust_domain: str) -> IdentityRule:
    """The rule that the setting `device.identity` names. Raises Invalid."""
    fields = identity_fields(setting)
    return SpiffeRule(trust_domain) if fields is None else SubjectRule(*fields)


@dataclass(frozen=True, slots=True)
class DeviceCA:
    """A configured device CA.

    Arguments:
        certificates: the CA and its intermediates; any of them may issue.
        fleets: patterns (`*`, `?`, `[…]`) of the fleets that it may name.
    """

    certificates: tuple[x509.Certificate, ...]
    fleets: tuple[str, ...] = ("*",)

    @classmethod
    def from_pem(cls, pem: bytes, fleets: Sequence[str] = ("*",)) -> "DeviceCA":
        """Read a bundle. Raises Invalid when it is none, or holds what is no CA."""
        try:
            certificates = tuple(x509.load_pem_x509_certificates(pem))
            authorities = all(map(_is_authority, certificates))
            for each in certificates:  # read when it is asked for: it may be malformed
                each.subject.rfc4514_string()
                each.issuer.rfc4514_string()
        except UNREADABLE as error:
            raise Invalid("A device CA file must hold PEM certificates.") from error
        if not authorities:
            raise Invalid(
                "A device CA file holds a certificate that is no CA (basicConstraints CA:TRUE)."
            )
        return cls(certificates, tuple(fleets))

    def without(self, dropped: Collection[x509.Certificate]) -> "DeviceCA":
        """The same, but for these certificates."""
        kept = tuple(each for each in self.certificates if each not in dropped)
        return DeviceCA(kept, self.fleets)

    def may_name(self, fleet: str) -> bool:
        """Whether it may issue for `fleet`."""
        return any(fnmatchcase(fleet, pattern) for pattern in self.fleets)


class DeviceCertificates:
    """Turns peer certificates into devices, for one set of CAs. Immutable but for its memory.

    Arguments:
        remember: how many certificates' answers are kept, the oldest forgotten first.
    """

    def __init__(
        self, cas: Sequence[DeviceCA], rule: IdentityRule, *, remember: int = MAX_REMEMBERED
    ) -> None:
        self._cas = tuple(cas)
        self._rule = rule
        self._most = remember
        self._known: OrderedDict[bytes, Device | Denied] = OrderedDict()

    def device(self, der: bytes) -> Device:
        """The device that the TLS layer's verified certificate `der` names.

        Called on every request: after a reload with new CAs, a connection whose issuer is
        gone is refused at its next one. Raises Denied (IDENTITY).
        """
        found = self._known.get(der)  # a connection's certificate is one object: hashed once
        if found is None:
            found = self._remember(der, self._read(der))
        if isinstance(found, Denied):
            raise _denied(found.message)  # a fresh one: a raised exception holds its frames
        return found

    def _remember(self, der: bytes, found: Device | Denied) -> Device | Denied:
        self._known[der] = found
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return found

    def _read(self, der: bytes) -> Device | Denied:
        try:
            certificate = x509.load_der_x509_certificate(der)
            return self._identify(certificate, sha256(der).hexdigest())
        except Denied as error:
            return _denied(error.message)
        except UNREADABLE as error:
            return _denied(f"The certificate cannot be read: {error}")

    def _identify(self, certificate: x509.Certificate, fingerprint: str) -> Device:
        issuers = [
            (each, ca)
            for ca in self._cas
            for each in ca.certificates
            if issued_by(each, certificate)
        ]
        if not issuers:
            raise _denied("The certificate's issuer is not among the configured device CAs.")
        _check_usage(certificate)
        fleet, name = self._rule.identify(certificate)
        naming = [issuer for issuer, ca in issuers if ca.may_name(fleet)]
        if not naming:
            raise _denied(f"The certificate's CA may not name devices of fleet {fleet}.")
        ends = certificate.not_valid_after_utc
        return Device(
            fleet=fleet,
            name=name,
            issuer=certificate.issuer.rfc4514_string(),
            serial=f"{certificate.serial_number:x}",
            fingerprint=fingerprint,
            not_before=certificate.not_valid_before_utc,
            not_after=ends,
            trusted_until=min(ends, max(each.not_valid_after_utc for each in naming)),
        )


def issued_by(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether `issuer`'s key signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(issuer)
    # Another name, kind of key, or signature.
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_usage(certificate: x509.Certificate) -> None:
    """OpenSSL lets a certificate without extended key usages pass; we do not (RFC 5280, 4.2.1.12)."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise _denied("The certificate does not say that it is for clientAuth.") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise _denied("The certificate is not for client authentication (clientAuth).")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return constraints.value.ca
