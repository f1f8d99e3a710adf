"""Bounds, wired: time limits of both wings' upstream clients, and the gates of the device wing's."""

import structlog

from facade.clock import Clock
from facade.config import Settings
from facade.descriptors import for_connections
from facade.observability.metrics import Metrics
from facade.serving.identity.limits import TlsLimits
from facade.serving.pulls.rates import DeviceRates, Rates
from facade.upstream.gate import Gates
from facade.upstream.retry import Timeouts
from facade.wings import ControlPort

log = structlog.get_logger(__name__)


def timeouts(settings: Settings) -> Timeouts:
    """The upstream clients' time limits."""
    given = settings.upstream.timeouts
    return Timeouts(
        connect=given.connect,
        unreachable=given.unreachable,
        first_byte=given.first_byte,
        stall_window=given.stall,
    )


def device_rates(settings: Settings, metrics: Metrics, clock: Clock) -> DeviceRates | None:
    """How fast one device may ask and be sent to; None where nothing bounds that."""
    given = settings.device.limits
    rates = Rates(given.requests_per_second, given.bytes_per_second, given.bytes_per_day)
    if not rates.any:
        return None
    return DeviceRates(rates, wait_seconds=given.wait, clock=clock, observer=metrics.overload)


def tls_limits(settings: Settings) -> TlsLimits:
    """The device listener's limits; connections never take the last descriptors."""
    given = settings.device.limits
    unnamed = TlsLimits().max_unnamed if settings.device.proxy_protocol_from else 0
    connections = min(given.connections, max(1, for_connections() - unnamed))
    if connections < given.connections:
        log.warning("connections_bounded_by_descriptors", limit=connections)
    return TlsLimits(
        handshake_seconds=given.handshake,
        idle_seconds=given.idle,
        stall_seconds=given.stall,
        min_bytes_per_second=given.min_bytes_per_second,
        max_connections=connections,
        max_unnamed=unnamed,
        max_handshakes_per_address=given.handshakes_per_address,
        max_per_certificate=given.connections_per_certificate,
    )


def upstream_gates(control: ControlPort, metrics: Metrics, clock: Clock) -> Gates:
    """A gate in front of each connected registry, shown in the metrics."""
    gates = Gates(clock=clock, observer=metrics.overload)

    def hosts() -> list[str]:
        return [str(host) for host in control.snapshot().connections]

    metrics.overload.watch_upstream(
        lambda: gates.open_circuits(hosts()), lambda: gates.budgets(hosts())
    )
    return gates
