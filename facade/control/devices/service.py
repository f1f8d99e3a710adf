"""The operator's use cases for devices: issue, list, revoke, restore.

Guarantees: a certificate is issued only for a fleet that exists, to whoever proves to hold the key,
under the name that the *operator* gave; it begins after the device's last revocation. A
change is durable and in `DenyList.revocations()` before the call returns; a revocation that cannot be
written is in it too, and the call says that it is not durable.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from facade.clock import Clock
from facade.control.devices.authority import DEVICE_DAYS, Authority, certificate_pem, read_csr
from facade.control.devices.denylist import DenyList, DeviceName, Issued
from facade.device import parse_fleet, parse_name
from facade.errors import Invalid, NotFound


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device that got a certificate here, or was revoked here.

    Arguments:
        serial, not_after: of its newest certificate.
        revoked_at: while it is revoked (not once it is restored), Unix seconds.
        revoked_serials: of single certificates.
    """

    fleet: str
    name: str
    serial: str | None
    not_after: float | None
    revoked_at: float | None
    revoked_serials: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A fresh certificate, PEM; `ca` is the server's CA, for the device to trust."""

    certificate: str
    ca: str
    serial: str
    not_after: float


class Devices:
    """Implements `facade.control.api.services.Devices`.

    Arguments:
        authority: the development CA, None where devices come from an existing PKI only.
        server_ca: PEM that devices are given to trust.
        fleets: names of the fleets that exist, asked at each issue.
        issuers: RFC 4514 subjects of the other CAs whose devices may connect.
        days: validity of a device certificate.
    """

    def __init__(
        self,
        deny_list: DenyList,
        *,
        authority: Authority | None,
        server_ca: str,
        trust_domain: str,
        fleets: Callable[[], Collection[str]],
        clock: Clock,
        issuers: Collection[str] = (),
        days: float = DEVICE_DAYS,
    ) -> None:
        self._deny_list = deny_list
        self._authority = authority
        self._server_ca = server_ca
        self._trust_domain = trust_domain
        self._fleets = fleets
        self._clock = clock
        own = {authority.name} if authority else set()
        self._foreign = sorted(set(issuers) - own)
        self._days = days

    async def list(self) -> Sequence[DeviceRecord]:
        """All, by fleet and name."""
        return [self._record(device) for device in self._deny_list.names()]

    async def issue(self, fleet: str, name: str, csr: str, *, actor: str) -> IssuedCertificate:
        """Sign a certificate request.

        Raises Invalid for a bad request or name, NotFound for a fleet that does not exist or
        when there is no development CA, Unavailable.
        """
        parse_fleet(fleet)
        parse_name(name, "device name")
        authority = self._authority
        if authority is None:
            raise NotFound("There is no development CA here; devices come from your own PKI.")
        if fleet not in self._fleets():
            raise NotFound(f"There is no fleet {fleet}. Add it with: facade fleet add {fleet}")
        key = read_csr(csr)
        begin = await self._begin((fleet, name))
        certificate = authority.device(self._trust_domain, fleet, name, key, begin, self._days)
        serial = f"{certificate.serial_number:x}"
        not_after = certificate.not_valid_after_utc.timestamp()
        await self._deny_list.record(
            Issued(
                fleet=fleet,
                name=name,
                issuer=authority.name,
                serial=serial,
                fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
                not_before=certificate.not_valid_before_utc.timestamp(),
                not_after=not_after,
                issued_at=self._clock.time(),
                issued_by=actor,
            )
        )
        pem = certificate_pem(certificate).decode()
        return IssuedCertificate(pem, self._server_ca, serial, not_after)

    async def revoke(self, fleet: str, name: str, serial: str | None, *, actor: str) -> None:
        """Refuse a device, or one certificate of it by its serial in hex.

        Raises NotFound for a device or serial that nobody here knows and no other CA could
        have issued (a slip of the pen must not look like a revocation), Unavailable.
        """
        device = (parse_fleet(fleet), parse_name(name, "device name"))
        now = self._clock.time()
        if serial is None:
            if not (self._foreign or device in self._deny_list.names()):
                raise NotFound(f"No certificate was issued to {fleet}/{name} here.")
            await self._deny_list.revoke_device(device, now, actor)
            return
        serial = _canonical_serial(serial)
        pairs = [
            (issued.issuer, issued.serial)
            for issued in self._deny_list.issued(device)
            if issued.serial == serial
        ]
        # Not one of ours: whichever of the other CAs issued it.
        pairs = pairs or [(issuer, serial) for issuer in self._foreign]
        if not pairs:
            raise NotFound(f"No certificate with that serial was issued to {fleet}/{name} here.")
        await self._deny_list.revoke_certificates(pairs, now, actor)

    async def restore(self, fleet: str, name: str, *, actor: str) -> None:
        """Admit certificates that began after the revocation; older ones stay out.

        Raises NotFound when the device is not revoked, Unavailable.
        """
        device = (parse_fleet(fleet), parse_name(name, "device name"))
        await self._deny_list.restore(device, self._clock.time(), actor)

    async def _begin(self, device: DeviceName) -> float:
        """The second at which a new certificate begins: this one, or the first after a revocation."""
        revoked = self._deny_list.revoked(device)
        earliest = math.floor(revoked.at) + 1 if revoked else 0
        now = self._clock.time()
        if now < earliest <= now + 1:
            # Certificates know whole seconds: wait for the next, so that it is valid at once.
            await self._clock.sleep(earliest - now)
        return max(math.floor(self._clock.time()), earliest)

    def _record(self, device: DeviceName) -> DeviceRecord:
        issued = self._deny_list.issued(device)
        revoked = self._deny_list.revoked(device)
        newest = issued[-1] if issued else None
        return DeviceRecord(
            fleet=device[0],
            name=device[1],
            serial=newest.serial if newest else None,
            not_after=newest.not_after if newest else None,
            revoked_at=revoked.at if revoked and not revoked.restored else None,
            revoked_serials=tuple(
                entry.serial
                for entry in issued
                if self._deny_list.is_revoked(entry.issuer, entry.serial)
            ),
        )


def issuers_of(pem: bytes) -> list[str]:
    """The RFC 4514 subjects in a CA bundle, for `Devices(issuers=…)`. Raises Invalid."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        return [certificate.subject.rfc4514_string() for certificate in certificates]
    except (ValueError, TypeError, x509.InvalidVersion) as error:
        raise Invalid("A device CA file must hold PEM certificates.") from error


def _canonical_serial(text: str) -> str:
    """Lower-case hex without separators or leading zeros. Raises Invalid."""
    try:
        return f"{int(text.replace(':', ''), 16):x}"
    except ValueError as error:
        raise Invalid("A serial is a hexadecimal number.") from error
