"""Who is connected, judged anew on every request.

Guarantees: the device is that of the connection's verified certificate and of nothing else; its
validity, its issuer, the deny list and CRLs are looked at as they are now, not as they were at the
handshake, and a deny list that may be too old admits nobody. A look-up and two comparisons: cheap enough for every request and every round of
`pulls.guard`.
"""

from asyncio import BaseTransport
from collections.abc import Sequence
from typing import Protocol

from facade.clock import Clock
from facade.device import Device
from facade.errors import Denied, Unavailable
from facade.reasons import Reason
from facade.serving.identity.revocation import Crl, check
from facade.wings import ControlPort

RETRY_AFTER_SECONDS = 30.0


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
    """Tells who is at the other end of a transport.

    Arguments:
        deny_list_max_age: seconds without word from the control side until nobody is admitted.
    """

    def __init__(
        self,
        *,
        authorities: Authorities,
        control: ControlPort,
        clock: Clock,
        deny_list_max_age: float,
    ) -> None:
        self._authorities = authorities
        self._control = control
        self._clock = clock
        self._max_age = deny_list_max_age

    def identify(self, transport: BaseTransport | None) -> Device:
        """The device at the other end. Raises Denied (IDENTITY)."""
        der = transport.get_extra_info("peercert_der") if transport is not None else None
        if not der:
            raise Denied(
                "A client certificate is needed; the connection has none.", reason=Reason.IDENTITY
            )
        return self._authorities.certificates().device(der)

    def admit(self, device: Device) -> None:
        """Judge an identified device as of now.

        Raises Denied (DEVICE_REVOKED, IDENTITY), or Unavailable (DENY_LIST_TOO_OLD) when it may
        have been revoked without our knowing.
        """
        check(
            device,
            self._control.snapshot().revocations,
            self._clock.time(),
            self._authorities.crls(),
        )
        if self._control.silent_seconds() >= self._max_age:
            raise Unavailable(
                "Whether this device was revoked is not known here just now: the control side of "
                "the facade has not been heard for too long.",
                reason=Reason.DENY_LIST_TOO_OLD,
                retry_after=RETRY_AFTER_SECONDS,
            )

    def check(self, transport: BaseTransport | None) -> Device:
        """Both: who it is, and whether it may go on."""
        device = self.identify(transport)
        self.admit(device)
        return device
