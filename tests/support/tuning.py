"""What a test may set of `tests.support.facade_app`, and how it names what it pulls."""

from dataclasses import dataclass

from facade.clock import Clock, SystemClock
from facade.oci.digest import Digest
from facade.serving.blobs.limits import TransferLimits
from facade.serving.identity.limits import TlsLimits
from facade.serving.pulls.admission import (
    Slots,
    WaitObserver,
    device_overloaded,
    upstream_overloaded,
)
from facade.serving.pulls.rates import DeviceKey, DeviceRates, RateObserver, Rates
from facade.upstream.retry import RetryPolicy, Timeouts
from tests.support.registry import Registry

LOOPBACK = ("127.0.0.0/8",)
_QUICK = RetryPolicy(attempts=2, base_seconds=0.01)
_LIMITS = TransferLimits(resume=_QUICK)
_TLS = TlsLimits()
_RATES = Rates()
_TIMEOUTS = Timeouts(unreachable=2.0, first_byte=5.0)


class MovableClock(SystemClock):
    """The machine's clock, whose wall time can be moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a test may set.

    Arguments:
        allow_cidrs: addresses that registries may have.
        requests, streams: slots per device; transfers: per connection.
        wait_seconds: for a slot.
        limits: of transfers.
        retry, timeouts: of the upstream client; quick by default.
        keep_manifests: whether signing leaves the manifests with the control port, as import does.
        ca_fleets: fleets that the device CA may name.
        tls: of the listener.
        rates: of one device.
        lanes: whether there is a short way before the HTTP server.
    """

    allow_cidrs: tuple[str, ...] = LOOPBACK
    requests: int = 64
    streams: int = 32
    transfers: int = 16
    wait_seconds: float = 30.0
    limits: TransferLimits = _LIMITS
    retry: RetryPolicy = _QUICK
    timeouts: Timeouts = _TIMEOUTS
    keep_manifests: bool = True
    ca_fleets: tuple[str, ...] = ("*",)
    tls: TlsLimits = _TLS
    rates: Rates = _RATES
    lanes: bool = True


def path(registry: Registry, repository: str, kind: str, digest: Digest | str) -> str:
    """The path of a pull, in prefix form."""
    return f"/v2/{registry.host}/{repository}/{kind}/{digest}"


def device_rates(tuning: Tuning, observer: RateObserver, clock: Clock) -> DeviceRates | None:
    """The rates of each device, where there are any."""
    if not tuning.rates.any:
        return None
    return DeviceRates(
        tuning.rates, wait_seconds=tuning.wait_seconds, clock=clock, observer=observer
    )


def device_slots(
    tuning: Tuning, limit: int, observer: WaitObserver, clock: Clock
) -> Slots[DeviceKey]:
    """Slots of each device."""
    return Slots(
        limit,
        wait_seconds=tuning.wait_seconds,
        clock=clock,
        refusal=device_overloaded,
        observer=observer,
    )


def upstream_slots(tuning: Tuning, clock: Clock) -> Slots[str]:
    """Slots of each connection."""
    return Slots(
        tuning.transfers,
        wait_seconds=tuning.wait_seconds,
        clock=clock,
        refusal=upstream_overloaded,
    )
