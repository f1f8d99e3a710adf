"""What a pull tells others: counted, and reported to the control wing.

Guarantees: never awaits, never raises for a full queue (the control port drops and counts); no device
gets more rows of the pulls than its quota (each of its requests is in the log all the same); an
integrity failure is counted and reported once, with host, repository and digest.
"""

from typing import Protocol

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError, Upstream
from facade.oci.request import PullRequest
from facade.reasons import Reason
from facade.serving.blobs.observer import CacheObserver, EvictionObserver, TransferObserver
from facade.serving.pulls.ports import PullObserver
from facade.serving.pulls.quota import DeviceQuota
from facade.upstream.connection import Connection
from facade.wings import ConnectionUsed, ControlPort, IntegrityFailed, Pulled


class NullPullObserver:
    """Counts nothing."""

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Ignore it."""


class Reports:
    """The one place that a pull reports through."""

    def __init__(
        self,
        *,
        control: ControlPort,
        clock: Clock,
        observer: PullObserver | None = None,
        quota: DeviceQuota | None = None,
    ) -> None:
        self._control = control
        self._clock = clock
        self._quota = quota or DeviceQuota()
        self._observer = observer or NullPullObserver()

    def pulled(
        self,
        device: Device,
        request: PullRequest,
        *,
        outcome: str,
        reason: Reason | None,
        bytes_sent: int,
        cache: str,
    ) -> None:
        """A pull has ended.

        Arguments:
            outcome: "served", "refused", "cut" (we ended it) or "left" (the device did).
            cache: "hit", "join", "miss", or "" when no blob was opened.
        """
        if not self._quota.take(str(device), self._clock.monotonic()):
            return
        self._control.report(
            Pulled(
                at=self._clock.time(),
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
        """Bytes did not match. Whoever found out has logged it."""
        self._observer.integrity_failed(host, repository, digest, detail)
        self._control.report(IntegrityFailed(self._clock.time(), host, repository, digest, detail))


class BlobCounts(CacheObserver, TransferObserver, EvictionObserver, Protocol):
    """Counts what happens to blobs; `observability.metrics.Metrics`."""


class BlobEvents:
    """The observer of `serving.blobs`: counts everything, and reports what does not match."""

    def __init__(self, counts: BlobCounts, reports: Reports) -> None:
        self.hit = counts.hit
        self.joined = counts.joined
        self.missed = counts.missed
        self.transfer_started = counts.transfer_started
        self.transfer_finished = counts.transfer_finished
        self.fetched = counts.fetched
        self.evicted = counts.evicted
        self.integrity_failed = reports.integrity_failed
