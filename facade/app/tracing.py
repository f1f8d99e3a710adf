"""Wires traces where they are configured, and nothing where they are not.

Guarantees: without `[tracing] endpoint` no tracing code is imported, and what it returns is what it was
given: the pull path is the very one that would be there without this module.
"""

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import structlog

from facade.config import Settings
from facade.errors import Invalid
from facade.serving.pulls.ports import Authorisation, Blobs, UpstreamRegistry
from facade.serving.pulls.traced import (
    TracedAuthorisation,
    TracedAuthorizer,
    TracedBlobs,
    TracedUpstream,
)
from facade.upstream.connection import Authorizer

if TYPE_CHECKING:
    from aiohttp import TraceConfig
    from aiohttp.typedefs import Middleware

    from facade.observability.tracing import Tracing

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 6.0


class Traces:
    """Puts spans around ports, if there is a tracer."""

    def __init__(self, tracing: "Tracing | None") -> None:
        self.requests = tracing
        self.watchers: tuple[TraceConfig, ...] = ()
        self.token_watchers: tuple[TraceConfig, ...] = ()
        self.link_watchers: tuple[TraceConfig, ...] = ()
        self.link_middlewares: tuple[Middleware, ...] = ()
        if tracing is not None:
            self.watchers = (tracing.watcher("upstream", hand_on=True),)
            self.token_watchers = (tracing.watcher("token service", hand_on=False),)
            self.link_watchers = (tracing.handing_over(),)
            self.link_middlewares = (tracing.taking_over(),)

    def authorisation(self, inner: Authorisation) -> Authorisation:
        """Decisions."""
        return inner if self.requests is None else TracedAuthorisation(inner, self.requests)

    def authorizer(self, inner: Authorizer) -> Authorizer:
        """What requests to registries are authorized with."""
        return inner if self.requests is None else TracedAuthorizer(inner, self.requests)

    def blobs(self, inner: Blobs) -> Blobs:
        """Blobs, opened and streamed."""
        return inner if self.requests is None else TracedBlobs(inner, self.requests)

    def upstream(self, inner: UpstreamRegistry) -> UpstreamRegistry:
        """What is asked of registries."""
        return inner if self.requests is None else TracedUpstream(inner, self.requests)


def open_traces(stack: AsyncExitStack, settings: Settings) -> Traces:
    """The traces that the settings ask for. Raises Invalid when the extra is not installed."""
    given = settings.tracing
    if given.endpoint is None:
        return Traces(None)
    try:
        from facade.observability.tracing import Tracing  # noqa: PLC0415 - costs 0.2 s
    except ImportError as error:
        raise Invalid(
            "tracing.endpoint needs OpenTelemetry: pip install 'facade[otel]', or take it out."
        ) from error
    tracing = Tracing(given.endpoint, ratio=given.sample_ratio, accept=given.accept_from_devices)

    async def close() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.to_thread(tracing.close)

    stack.push_async_callback(close)
    log.info("tracing", url=given.endpoint)
    return Traces(tracing)
