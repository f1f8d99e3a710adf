"""Traces by OpenTelemetry, sent over OTLP/HTTP. Imported only where `[tracing] endpoint` is set.

Guarantees: a request never waits for the collector: spans go into a bounded queue that a thread of the
library empties, and what does not fit is dropped; what a span says is put together by
`serving.*.traced` and here, so that no URL, header or error text gets in. A device's `traceparent`
is ignored unless configured otherwise: devices are not trusted to say what is sampled. Registries
get the W3C context of the request that asked them (random numbers, on every hop); token services,
which are told credentials, get nothing besides.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import facade
from facade.errors import FacadeError

EXPORT_SECONDS = 5.0
"""How long the collector may take for a batch; longer at the end it is not waited for."""
_QUEUE = 4096
_DELAY_MS = 1000

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Tracing:
    """Makes spans. Implements `serving.api.traced.RequestTracer` and `serving.pulls.traced.SpanTracer`.

    Arguments:
        endpoint: the collector's OTLP/HTTP URL.
        ratio: share of requests that are traced, 0 to 1.
        accept: continue the trace that a device names.
    """

    def __init__(self, endpoint: str, *, ratio: float, accept: bool) -> None:
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({SERVICE_NAME: "facade", SERVICE_VERSION: facade.__version__}),
            shutdown_on_exit=False,  # `close` does, within a bound
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS),
                max_queue_size=_QUEUE,
                schedule_delay_millis=_DELAY_MS,
                export_timeout_millis=EXPORT_SECONDS * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("facade", facade.__version__)
        self._w3c = TraceContextTextMapPropagator()
        self._accept = accept

    def close(self) -> None:
        """Send what waits, and stop. Blocking, some `EXPORT_SECONDS` at most."""
        self._provider.force_flush(int(EXPORT_SECONDS * 1000))
        self._provider.shutdown()

    # serving.api.traced

    def around(self, handle: Handle) -> Handle:
        """`handle` within a span that begins a trace."""

        async def traced(http: web.BaseRequest) -> web.StreamResponse:
            context = self._w3c.extract(http.headers) if self._accept else Context()
            with self._tracer.start_as_current_span(
                "device request",
                context=context,
                kind=SpanKind.SERVER,
                record_exception=False,
                set_status_on_exception=False,
            ):
                return await handle(http)

        return traced

    def ended(self, name: str, facts: Mapping[str, str | int], reason: str | None) -> None:
        """See `RequestTracer.ended`."""
        span = trace.get_current_span()
        if span.is_recording():
            span.update_name(name)
            span.set_attributes(facts)
            if reason is not None:
                span.set_attribute("facade.reason", reason)
                span.set_status(Status(StatusCode.ERROR, reason))

    # serving.pulls.traced

    @contextmanager
    def span(self, name: str, **facts: str | int) -> Iterator["OtelSpan"]:
        """See `SpanTracer.span`."""
        with self._tracer.start_as_current_span(
            name,
            attributes=_named(facts),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield OtelSpan(span)
            except BaseException as error:
                reason = error.reason if isinstance(error, FacadeError) else None
                span.set_status(Status(StatusCode.ERROR, str(reason or type(error).__name__)))
                raise

    def begin(self, name: str, **facts: str | int) -> "OtelSpan":
        """See `SpanTracer.begin`."""
        return OtelSpan(self._tracer.start_span(name, attributes=_named(facts)))

    # upstream.transport

    def watcher(self, whom: str, *, hand_on: bool) -> aiohttp.TraceConfig:
        """Spans around each HTTP request.

        Arguments:
            whom: who is asked: the second word of the spans' name.
            hand_on: give them the `traceparent`.
        """

        async def started(
            session: aiohttp.ClientSession,
            context: SimpleNamespace,
            request: aiohttp.TraceRequestStartParams,
        ) -> None:
            facts = {
                "http.request.method": request.method,
                "server.address": request.url.host or "",
            }
            context.span = self._tracer.start_span(
                f"{request.method} {whom}", kind=SpanKind.CLIENT, attributes=facts
            )
            if hand_on:
                self._w3c.inject(request.headers, trace.set_span_in_context(context.span))

        watcher = aiohttp.TraceConfig()
        watcher.on_request_start.append(started)
        watcher.on_request_end.append(self._answered)
        watcher.on_request_exception.append(self._failed)
        return watcher

    # link: one trace over two of our processes

    def handing_over(self) -> aiohttp.TraceConfig:
        """Gives each request the current span's `traceparent`, and no span of its own."""

        async def started(
            session: aiohttp.ClientSession,
            context: SimpleNamespace,
            request: aiohttp.TraceRequestStartParams,
        ) -> None:
            self._w3c.inject(request.headers)

        watcher = aiohttp.TraceConfig()
        watcher.on_request_start.append(started)
        return watcher

    def taking_over(self) -> Middleware:
        """Continues the trace that a request of `handing_over` names."""

        @web.middleware
        async def continued(request: web.Request, handler: Handler) -> web.StreamResponse:
            token = attach(self._w3c.extract(request.headers, Context()))
            try:
                return await handler(request)
            finally:
                detach(token)

        return continued

    async def _answered(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        request: aiohttp.TraceRequestEndParams,
    ) -> None:
        context.span.set_attribute("http.response.status_code", request.response.status)
        if request.response.status >= 500:
            context.span.set_status(Status(StatusCode.ERROR))
        context.span.end()

    async def _failed(
        self,
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        request: aiohttp.TraceRequestExceptionParams,
    ) -> None:
        context.span.set_status(Status(StatusCode.ERROR, type(request.exception).__name__))
        context.span.end()


class OtelSpan:
    """Implements `serving.pulls.traced.Span`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, key: str, value: str | int) -> None:
        """Add an attribute."""
        self._span.set_attribute(f"facade.{key}", value)

    def end(self) -> None:
        """It is over; a second time does nothing."""
        if self._span.is_recording():
            self._span.end()


def _named(facts: Mapping[str, str | int]) -> dict[str, str | int]:
    return {f"facade.{key}": value for key, value in facts.items()}
