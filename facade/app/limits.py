"""Bounds, wired: time limits of both wings' upstream clients, and the gates of the device wing's."""

from facade.clock import Clock
from facade.config import Settings
from facade.observability.metrics import Metrics
from facade.upstream.gate import Gates
from facade.upstream.retry import Timeouts
from facade.wings import ControlPort


def timeouts(settings: Settings) -> Timeouts:
    """The upstream clients' time limits."""
    given = settings.upstream.timeouts
    return Timeouts(
        connect=given.connect,
        unreachable=given.unreachable,
        first_byte=given.first_byte,
        stall_window=given.stall,
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
