"""What ends a certificate after its handshake: time, its CA's time, the deny list, CRLs.

Guarantees: `check` is plain comparisons on values, cheap enough for every request and for every
few blocks of a stream, so a revoked device loses its running transfers too. A CRL counts only
when its signature was made by a configured CA's key. Does not fetch CRLs: they are files.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from facade.device import Device
from facade.errors import Denied, Invalid
from facade.reasons import Reason
from facade.serving.identity.certificate import UNREADABLE
from facade.wings import Revocations

_PEM = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
WARN_BEFORE_SECONDS = 24 * 3600.0
"""How long before its next update is due a CRL is worth a warning."""


@dataclass(frozen=True, slots=True)
class Crl:
    """A verified certificate revocation list (RFC 5280, 5).

    Arguments:
        issuer: RFC 4514 string of the CA's subject.
        serials: the revoked serials, lower-case hex.
        next_update: Unix seconds by which a newer one is due, None when it does not say.
        refuse_stale: treat it, when overdue, as a refusal of the CA's devices, not as an alarm.
    """

    issuer: str
    serials: frozenset[str]
    next_update: float | None = None
    refuse_stale: bool = False

    def revokes(self, device: Device) -> bool:
        """Whether it lists the device's certificate."""
        return device.issuer == self.issuer and device.serial in self.serials

    def revokes_ca(self, certificate: x509.Certificate) -> bool:
        """Whether it lists this (intermediate) CA."""
        return (
            f"{certificate.serial_number:x}" in self.serials
            and certificate.issuer.rfc4514_string() == self.issuer
        )

    def stale(self, now: float) -> bool:
        """Whether a newer one is overdue at `now` (Unix seconds)."""
        return self.next_update is not None and now > self.next_update


def read_crls(
    data: bytes, issuers: Sequence[x509.Certificate], *, refuse_stale: bool = False
) -> tuple[Crl, ...]:
    """Read and verify a file of CRLs: any number in PEM (a root's and its intermediates'), or one in DER.

    Arguments:
        refuse_stale: see `Crl`.

    Raises Invalid when one of them is none, when none of `issuers` signed it, or when it is a
    kind that would be misread (indirect, delta, partial scope: a critical extension, RFC 5280,
    5.2).
    """
    if b"-----BEGIN " not in data:
        return (_read_crl(data, issuers, pem=False, refuse_stale=refuse_stale),)
    blocks = _PEM.findall(data)
    if len(blocks) != data.count(b"-----BEGIN ") or not blocks:  # or a part would go unseen
        raise Invalid("That is no certificate revocation list.")
    return tuple(_read_crl(one, issuers, pem=True, refuse_stale=refuse_stale) for one in blocks)


def _read_crl(
    data: bytes, issuers: Sequence[x509.Certificate], *, pem: bool, refuse_stale: bool
) -> Crl:
    try:
        crl = x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
        if any(extension.critical for extension in crl.extensions):
            raise Invalid(
                "The CRL has a critical extension (indirect, delta or partial), which is not "
                "supported: give the CA's complete CRL."
            )
        serials = frozenset(f"{entry.serial_number:x}" for entry in crl)
        name = crl.issuer.rfc4514_string()  # read when it is asked for: it may be malformed
    except UNREADABLE as error:
        raise Invalid("That is no certificate revocation list.") from error
    if not any(_signed(crl, issuer) for issuer in issuers):
        raise Invalid("The CRL is not signed by this device CA.")
    due = crl.next_update_utc
    return Crl(name, serials, due.timestamp() if due else None, refuse_stale)


def check(
    device: Device,
    revocations: Revocations,
    now: float,
    crls: Sequence[Crl] = (),
) -> None:
    """Refuse a device whose certificate is over or withdrawn.

    Arguments:
        now: Unix seconds.

    Raises Denied: IDENTITY outside the validity period, its CA's too (or under a stale CRL that
    refuses), DEVICE_REVOKED when the device or its certificate is on the deny list or a CRL.
    """
    if now > device.trusted_until.timestamp():
        raise _over(device, now)
    if now < device.not_before.timestamp():
        raise Denied("The device's certificate is not yet valid.", reason=Reason.IDENTITY)
    since = revocations.devices.get((device.fleet, device.name))
    if since is not None and device.not_before.timestamp() <= since:
        raise _revoked()
    if (device.issuer, device.serial) in revocations.certificates:
        raise _revoked()
    for crl in crls:
        if crl.revokes(device):
            raise _revoked()
        if crl.refuse_stale and crl.issuer == device.issuer and crl.stale(now):
            raise Denied(
                "The certificate's revocation list is out of date; the operator must renew it.",
                reason=Reason.IDENTITY,
            )


def _over(device: Device, now: float) -> Denied:
    if now > device.not_after.timestamp():
        return Denied("The device's certificate has expired.", reason=Reason.IDENTITY)
    return Denied(
        "The certificate of the CA that vouches for the device's has expired.",
        reason=Reason.IDENTITY,
    )


def crl_warnings(crls: Sequence[Crl], now: float) -> list[str]:
    """In words, the CRLs that are overdue at `now` or will be within a day."""
    return [
        f"The CRL of {crl.issuer} is overdue."
        if crl.stale(now)
        else f"The CRL of {crl.issuer} is due for renewal."
        for crl in crls
        if crl.stale(now + WARN_BEFORE_SECONDS)
    ]


def _revoked() -> Denied:
    return Denied(
        "This device's certificate was revoked by the operator.", reason=Reason.DEVICE_REVOKED
    )


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        if crl.issuer != issuer.subject:
            return False
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a kind of key that cannot sign CRLs
        return False
