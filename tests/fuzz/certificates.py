"""Harnesses for certificates, revocation lists and what else is DER: a device's, a CA's, an operator's.

A signature stops most bytes at the door, so the `…-signed` ones sign whatever they are given with the CA's own
key: what a CA that was talked into it, or is confused, could issue.
"""

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from facade.control.devices.authority import new_csr, new_key, read_csr
from facade.control.devices.service import issuers_of
from facade.errors import FacadeError, Invalid
from facade.reasons import Reason
from facade.serving.identity.certificate import (
    DeviceCA,
    DeviceCertificates,
    SpiffeRule,
    SubjectRule,
)
from facade.serving.identity.handshake import presented
from facade.serving.identity.revocation import check, crl_warnings, read_crls
from facade.serving.identity.tls import revoked_cas
from facade.wings import Revocations
from tests.fuzz.harness import Harness, fields
from tests.support.pki import TRUST_DOMAIN, Authority, now, spiffe, subject

_NOW = now().timestamp()
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_BEGIN_LIST = b"-----BEGIN X509 CRL-----"


class Certificates:
    """Certificates that the TLS layer let in, and revocation lists, of one CA."""

    def __init__(self) -> None:
        self.authority = Authority.root("Device CA")
        self.cas = DeviceCA.from_pem(self.authority.pem, ("dev",))
        self.crls = read_crls(self.authority.crl(), self.cas.certificates)

    def der(self, data: bytes) -> None:
        """Any bytes as a certificate."""
        DeviceCertificates((self.cas,), SpiffeRule(TRUST_DOMAIN)).device(data)

    def issued(self, data: bytes) -> None:
        """Any certificate that the CA signs."""
        der = self._signed(data)
        for rule in (SpiffeRule(TRUST_DOMAIN), SubjectRule()):
            try:
                device = DeviceCertificates((self.cas,), rule).device(der)
                check(device, Revocations(), _NOW, self.crls)
            except FacadeError as error:
                assert error.reason is Reason.IDENTITY, error
                continue
            assert device.fleet == "dev"

    def names(self, data: bytes) -> None:
        """Well-signed certificates that name whatever the CA was talked into."""
        uri, unit, common = fields(data, 3)
        for rule in (SpiffeRule(TRUST_DOMAIN), SubjectRule()):
            try:
                name = subject(OU=unit or "-", CN=common or "-")
                der = self.authority.device(uris=uri.split("\n"), subject=name).der
            except (ValueError, UnicodeError):  # no such certificate can be made
                return
            try:
                found = DeviceCertificates((self.cas,), rule).device(der)
            except FacadeError as error:
                assert error.reason is Reason.IDENTITY
                continue
            assert found.fleet == "dev"

    def crl(self, data: bytes) -> None:
        """Any bytes as a revocation list."""
        read_crls(data, self.cas.certificates)

    def issued_crl(self, data: bytes) -> None:
        """Any list that the CA signs."""
        crls = read_crls(self._signed(data), self.cas.certificates)
        revoked_cas((self.cas,), crls)
        crl_warnings(crls, _NOW)

    def bundle(self, data: bytes) -> None:
        """Any bytes as an operator's file of device CAs; what is taken can be worked with."""
        try:
            found = DeviceCA.from_pem(data)
        except Invalid:
            issuers_of(data)
            raise
        revoked_cas((found,), self.crls)
        assert len(issuers_of(data)) == len(found.certificates)

    def presented(self, data: bytes) -> None:
        """What somebody presented who was refused, as it goes into the log."""
        seen = presented(data)
        assert seen is None or (len(seen.subject) <= 300 and len(seen.serial) <= 64)

    def _signed(self, data: bytes) -> bytes:
        signature = self.authority.key.sign(data, ec.ECDSA(hashes.SHA256()))
        return _der(0x30, data + _ECDSA_SHA256 + _der(0x03, b"\0" + signature))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def request(data: bytes) -> None:
    """An operator's certificate request."""
    read_csr(fields(data, 1)[0])


def harnesses() -> list[Harness]:
    """All of them."""
    certificates = Certificates()
    authority = certificates.authority
    leaf = authority.device()
    crl = _list_of(authority)
    return [
        Harness("certificate", certificates.der, [leaf.der]),
        Harness(
            "certificate-signed", certificates.issued, [leaf.certificate.tbs_certificate_bytes]
        ),
        Harness(
            "identity",
            certificates.names,
            [
                spiffe("dev", "kiosk-7").encode() + b"\0dev\0kiosk-7",
                b"a\nb\0other\0x",
                b"\0dev\0\xc3\x9f",
            ],
            [b"spiffe://", b"/fleet/", b"/device/", b"dev"],
            512,
        ),
        Harness("crl", certificates.crl, [authority.crl(), authority.crl() * 2], [_BEGIN_LIST]),
        Harness("crl-signed", certificates.issued_crl, [crl]),
        Harness(
            "device-ca",
            certificates.bundle,
            [authority.pem, authority.pem + authority.intermediate().pem],
            [b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"],
        ),
        Harness("certificate-presented", certificates.presented, [leaf.der]),
        Harness("certificate-request", request, [new_csr(new_key()).encode()]),
    ]


def _list_of(authority: Authority) -> bytes:
    """What a CA signs in its revocation list."""
    return x509.load_pem_x509_crl(authority.crl(authority.device())).tbs_certlist_bytes
