"""The seam for traces of requests: who wants them wraps the handler and is told how it ended.

Guarantees: nothing here runs unless a tracer is wired. Names no tracing library.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from facade.reasons import Reason
from facade.serving.api.exchange import Books, Record, outcome

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class RequestTracer(Protocol):
    """`observability.tracing.Tracing`."""

    def around(self, handle: Handle) -> Handle:
        """`handle` within a span of its own."""
        ...

    def ended(self, name: str, facts: Mapping[str, str | int], reason: str | None) -> None:
        """Name the current request's span, and say what is known of it.

        Arguments:
            reason: why it was refused or failed; None = it was not.
        """
        ...


@dataclass(frozen=True, slots=True)
class TracedBooks:
    """Books that tell the tracer too."""

    books: Books
    tracer: RequestTracer

    def finished(self, exchange: Record) -> None:
        """Write it down, then name the span.

        The device is not named: its request id is, which the log has beside the device. What a
        trace is kept for needs no name, and where it is kept is often somebody else's.
        """
        self.books.finished(exchange)
        facts: dict[str, str | int] = {
            "facade.request_id": exchange.id,
            "facade.outcome": outcome(exchange),
            "facade.sent_bytes": exchange.bytes_sent,
            "http.request.method": exchange.method,
            "http.response.status_code": exchange.status,
        }
        if exchange.device is not None:
            facts["facade.fleet"] = exchange.device.fleet
        if exchange.pull is not None:
            facts["facade.host"] = str(exchange.pull.host)
            facts["facade.repository"] = str(exchange.pull.repository)
            facts["facade.digest"] = str(exchange.pull.digest)
        if exchange.cache:
            facts["facade.cache"] = exchange.cache
        error = exchange.error
        reason = None if error is None else str(error.reason or Reason.INTERNAL)
        self.tracer.ended(f"{exchange.method} {exchange.route}", facts, reason)
