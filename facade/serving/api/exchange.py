"""One request and its answer, and the one line that is written about it.

Guarantees: whatever happens to a request, exactly one access log line, one set of metrics and at
most one report to the control wing come of it, built once, after the last byte.
"""

from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError
from facade.observability.access import Access, AccessLog
from facade.observability.metrics import Metrics
from facade.oci.request import PullRequest
from facade.reasons import Reason
from facade.serving.pulls.reports import Reports

OTHER_ROUTE = "other"
LEFT_STATUS = 499
"""Counted and logged when the device left before any answer (nginx's convention)."""


@dataclass(slots=True)
class Record:
    """What is written down about a request.

    Arguments:
        id: the request id, in the body of every refusal and in every log line.
        started: monotonic seconds.
        route: "version", "manifests", "blobs", "referrers", "tuf", "targets", "whoami", "other".
        cache: "hit", "join", "miss", or "" when no blob was opened.
        begun: the head of an answer is out whose body follows.
        complete: the whole promised body went out.
    """

    id: str
    started: float
    method: str
    route: str = OTHER_ROUTE
    device: Device | None = None
    pull: PullRequest | None = None
    status: int = LEFT_STATUS
    cache: str = ""
    bytes_sent: int = 0
    begun: bool = False
    complete: bool = False
    first_byte: float | None = None
    error: FacadeError | None = None


class Exchange(Record):
    """A request in hand of the HTTP server.

    Arguments:
        response: the answer that is begun.
    """

    __slots__ = ("http", "response")

    def __init__(self, http: web.BaseRequest, request_id: str, started: float) -> None:
        super().__init__(request_id, started, http.method)
        self.http = http
        self.response: web.StreamResponse | None = None

    @property
    def head_only(self) -> bool:
        """Whether it is a HEAD request."""
        return self.method == "HEAD"


def place(http: web.BaseRequest) -> tuple[str, str | None]:
    """What a request names: its path, and containerd's `?ns=`."""
    return http.path, http.query.get("ns") if http.query_string else None


class Books(Protocol):
    """Where it is written down."""

    def finished(self, exchange: Record, /) -> None:
        """A request has ended, whatever became of it. Never raises for what a peer did."""
        ...


@dataclass(frozen=True, slots=True)
class Bookkeeper:
    """Writes down what became of an exchange."""

    metrics: Metrics
    reports: Reports
    access: AccessLog
    clock: Clock
    quiet_routes: frozenset[str] = field(default=frozenset({"version"}))

    def finished(self, exchange: Record) -> None:
        """Count, log and report. Never raises for what a peer did."""
        seconds = self.clock.monotonic() - exchange.started
        metrics = self.metrics
        metrics.request_done(exchange.route, exchange.status, seconds)
        if exchange.first_byte is not None:
            metrics.first_byte(exchange.route, exchange.first_byte - exchange.started)
        host = str(exchange.pull.host) if exchange.pull is not None else ""
        if exchange.bytes_sent and host:
            metrics.sent(host, exchange.bytes_sent)
        self._report(exchange)
        self._log(exchange, seconds)

    def _report(self, exchange: Record) -> None:
        error = exchange.error
        if error is not None:
            self.metrics.refused(error.reason or Reason.INTERNAL)
        if exchange.device is None or exchange.pull is None:
            return
        self.reports.pulled(
            exchange.device,
            exchange.pull,
            outcome=outcome(exchange),
            reason=None if error is None else error.reason or Reason.INTERNAL,
            bytes_sent=exchange.bytes_sent,
            cache=exchange.cache,
        )

    def _log(self, exchange: Record, seconds: float) -> None:
        error = exchange.error
        access = Access(
            exchange.id,
            exchange.method,
            exchange.route,
            exchange.status,
            outcome(exchange),
            exchange.bytes_sent,
            seconds,
            exchange.device,
            exchange.pull,
            exchange.cache,
            None if error is None else error.reason,
            None if error is None else error.message,
        )
        self.access.write(access, quiet=exchange.route in self.quiet_routes)


def outcome(exchange: Record) -> str:
    """In a word, as `Reports.pulled` wants it."""
    if exchange.begun and not exchange.complete:
        return "left" if exchange.error is None else "cut"
    if exchange.error is not None:
        return "refused"
    return "left" if exchange.status == LEFT_STATUS else "served"
