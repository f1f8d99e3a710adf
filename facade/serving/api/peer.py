"""Who is connected, judged anew on every request.

Guarantees: the device is that of the connection's verified certificate and of nothing else; its
validity, its issuer, the deny list and CRLs are looked at as they are now, not as they were at the
handshake. A look-up and two comparisons: cheap enough for every request and every round of
`pulls.guard`.
"""

from asyncio import BaseTransport
from collections.abc import Sequence
from typing import Protocol

from facade.clock import Clock
from facade.device import Device
from facade.errors import Denied
from facade.reasons import Reason
from facade.serving.identity.revocation import Crl, check
from facade.wings import ControlPort


class Certificates(Protocol):
    """Certificates read into devices; `identity.certificate.DeviceCertificates`."""

    def device(self, der: bytes) -> Device:
        """Raises Denied (IDENTITY). Cached by fingerprint."""
        ...


class Authorities(Protocol):
    """The device CAs and their revocation lists as they are now; `identity.tls.TlsContexts`."""

    def certificates(self) -> Certificates:
        """Those of the current files."""
        ...

    def crls(self) -> Sequence[Crl]:
        """Those of the current files."""
        ...


class Peers:
    """Tells who is at the other end of a transport."""

    def __init__(self, *, authorities: Authorities, control: ControlPort, clock: Clock) -> None:
        self._authorities = authorities
        self._control = control
        self._clock = clock

    def identify(self, transport: BaseTransport | None) -> Device:
        """The device at the other end. Raises Denied (IDENTITY)."""
        der = transport.get_extra_info("peercert_der") if transport is not None else None
        if not der:
            raise Denied(
                "A client certificate is needed; the connection has none.", reason=Reason.IDENTITY
            )
        return self._authorities.certificates().device(der)

    def admit(self, device: Device) -> None:
        """Judge an identified device as of now. Raises Denied (DEVICE_REVOKED, IDENTITY)."""
        check(
            device,
            self._control.snapshot().revocations,
            self._clock.time(),
            self._authorities.crls(),
        )

    def check(self, transport: BaseTransport | None) -> Device:
        """Both: who it is, and whether it may go on."""
        device = self.identify(transport)
        self.admit(device)
        return device
