"""What a pull tells others: counted, logged, and reported to the control wing.

Guarantees: never awaits, never raises for a full queue (the control port drops and counts); an
integrity failure always leaves all three traces, with host, repository and digest.
"""

import structlog

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError, Upstream
from facade.oci.request import PullRequest
from facade.reasons import Reason
from facade.serving.pulls.ports import PullObserver
from facade.upstream.connection import Connection
from facade.wings import ConnectionUsed, ControlPort, IntegrityFailed, Pulled

log = structlog.get_logger(__name__)


class NullPullObserver:
    """Counts nothing."""

    def refused(self, reason: Reason) -> None:
        """Ignore it."""

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Ignore it."""


class Reports:
    """The one place that a pull reports through."""

    def __init__(
        self, *, control: ControlPort, clock: Clock, observer: PullObserver | None = None
    ) -> None:
        self._control = control
        self._clock = clock
        self._observer = observer or NullPullObserver()

    def served(
        self, device: Device, request: PullRequest, *, bytes_sent: int, cache: str = ""
    ) -> None:
        """A pull was answered; `cache` is "hit", "join", "miss" or "" (no body, a manifest)."""
        self._control.report(
            _pulled(self._clock, device, request, "served", None, bytes_sent, cache)
        )

    def failed(
        self,
        device: Device,
        request: PullRequest,
        error: FacadeError,
        *,
        bytes_sent: int = 0,
        cache: str = "",
    ) -> None:
        """A pull was refused (nothing sent) or cut."""
        reason = error.reason or Reason.INTERNAL
        self._observer.refused(reason)
        outcome = "cut" if bytes_sent else "refused"
        self._control.report(
            _pulled(self._clock, device, request, outcome, reason, bytes_sent, cache)
        )

    def connection_used(self, connection: Connection, error: FacadeError | None) -> None:
        """A registry was spoken to. That it lacks something is no failure of the connection."""
        failed = isinstance(error, Upstream) and error.reason is not Reason.UPSTREAM_NOT_FOUND
        self._control.report(
            ConnectionUsed(
                connection.id, self._clock.time(), error.message if failed and error else None
            )
        )

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Bytes did not match."""
        self._observer.integrity_failed(host, repository, digest, detail)
        log.error(
            "integrity_failed", host=host, repository=repository, digest=digest, detail=detail
        )
        self._control.report(IntegrityFailed(self._clock.time(), host, repository, digest, detail))


def _pulled(
    clock: Clock,
    device: Device,
    request: PullRequest,
    outcome: str,
    reason: Reason | None,
    bytes_sent: int,
    cache: str,
) -> Pulled:
    return Pulled(
        at=clock.time(),
        device=str(device),
        host=str(request.host),
        repository=str(request.repository),
        digest=str(request.digest),
        role=str(request.role),
        outcome=outcome,
        reason=reason,
        bytes_sent=bytes_sent,
        cache=cache,
    )
