"""A collector of traces: takes OTLP over HTTP, as opentelemetry-collector does, and keeps what it was sent.

Guarantees: what is kept was decoded from protobuf by the specification's own messages; bodies may be gzipped.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it was sent. Ids in hex; `parent` is "" for the first of a trace."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    status: int
    seconds: float
    facts: Mapping[str, str | int]


@dataclass
class Collector:
    """Where it listens, and what came."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def named(self, name: str) -> list[Received]:
        """Spans of this name, in the order of their arrival."""
        return [span for span in self.spans if span.name == name]

    async def until(self, *names: str) -> None:
        """Return when each of these has come."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not set(names) <= {span.name for span in self.spans}:  # noqa: ASYNC110 - it is told by whoever sends
                await asyncio.sleep(0.05)

    async def take(self, request: web.Request) -> web.Response:
        """`POST /v1/traces` (OTLP/HTTP, binary protobuf)."""
        assert request.content_type == "application/x-protobuf"
        data = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        self.raw.append(data)
        message = ExportTraceServiceRequest.FromString(data)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Received(
                            name=span.name,
                            trace=span.trace_id.hex(),
                            id=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            kind=span.kind,
                            status=span.status.code,
                            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                            facts={
                                fact.key: fact.value.string_value or fact.value.int_value
                                for fact in span.attributes
                            },
                        )
                    )
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """A running one, on a free port."""
    made = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield made
    finally:
        await runner.cleanup()
