"""The ports of a pull, each call within a span: put around the real ones where traces are wanted.

Guarantees: what is inside answers and fails as it would without; spans carry names of ours, hosts,
repositories, digests and reason codes, never a URL, a header, or an error's words. Names no tracing
library. Wired by `app` when a tracer is configured, else not at all.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from facade.oci.digest import Digest
from facade.oci.manifest import Descriptor
from facade.oci.reference import Repository
from facade.oci.request import PullRequest
from facade.serving.blobs.port import BlobBody, BlobSource, BlobStream, Outcome
from facade.serving.pulls.ports import (
    Authorisation,
    Blobs,
    FetchedManifest,
    UpstreamRegistry,
)
from facade.serving.trust.closure import Allowed
from facade.target import SignedTarget
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Authorizer, Connection, Scope


class Span(Protocol):
    """Something that takes time."""

    def note(self, key: str, value: str | int) -> None:
        """Add an attribute."""
        ...

    def end(self) -> None:
        """It is over; a second time does nothing."""
        ...


class SpanTracer(Protocol):
    """`observability.tracing.Tracing`."""

    def span(self, name: str, **facts: str | int) -> AbstractContextManager[Span]:
        """A span, current within; an error that leaves it becomes its status."""
        ...

    def begin(self, name: str, **facts: str | int) -> Span:
        """A span that is nobody's current one; whoever began it ends it."""
        ...


class TracedAuthorisation:
    """Implements `ports.Authorisation`."""

    def __init__(self, inner: Authorisation, tracer: SpanTracer) -> None:
        self._inner = inner
        self._tracer = tracer
        self.learn = inner.learn
        self.decide_now = inner.decide_now

    async def decide(self, fleet: str, request: PullRequest) -> Allowed:
        with self._tracer.span("decide", fleet=fleet, role=str(request.role)):
            return await self._inner.decide(fleet, request)

    async def referrers(self, fleet: str, request: PullRequest) -> tuple[Descriptor, ...]:
        with self._tracer.span("decide referrers", fleet=fleet):
            return await self._inner.referrers(fleet, request)

    async def target(self, fleet: str, path: str) -> SignedTarget | None:
        with self._tracer.span("decide target", fleet=fleet):
            return await self._inner.target(fleet, path)


class TracedAuthorizer:
    """Implements `upstream.connection.Authorizer`: the control side asks a token service, or need not."""

    def __init__(self, inner: Authorizer, tracer: SpanTracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        with self._tracer.span("authorize", host=str(connection.host)):
            return await self._inner.authorization(
                connection, scope, challenge=challenge, refused=refused
            )


class TracedBlobs:
    """Implements `ports.Blobs`: how a blob was found, then how long it was streamed."""

    def __init__(self, inner: Blobs, tracer: SpanTracer) -> None:
        self._inner = inner
        self._tracer = tracer
        self.hot = inner.hot

    async def get(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
    ) -> BlobStream:
        with self._tracer.span("open blob", size=size) as span:
            stream = await self._inner.get(connection, repository, digest, size, source)
            span.note("cache", stream.outcome)
        return _TracedStream(stream, self._tracer)

    async def held(
        self, connection: Connection, repository: Repository, digest: Digest, limit: int
    ) -> bytes | None:
        return await self._inner.held(connection, repository, digest, limit)

    async def put(
        self, connection: Connection, repository: Repository, digest: Digest, data: bytes
    ) -> bool:
        return await self._inner.put(connection, repository, digest, data)


class _TracedStream:
    def __init__(self, inner: BlobStream, tracer: SpanTracer) -> None:
        self._inner = inner
        self._span = tracer.begin("stream blob", size=inner.size, cache=inner.outcome)

    @property
    def size(self) -> int:
        return self._inner.size

    @property
    def outcome(self) -> Outcome:
        return self._inner.outcome

    def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[memoryview]:
        return self._inner.chunks(start, stop)

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            self._span.end()


class TracedUpstream:
    """Implements `ports.UpstreamRegistry`. Each HTTP request within is the client's to trace."""

    def __init__(self, inner: UpstreamRegistry, tracer: SpanTracer) -> None:
        self._inner = inner
        self._tracer = tracer

    async def manifest(
        self, connection: Connection, repository: Repository, reference: Digest
    ) -> FetchedManifest:
        with self._tracer.span("fetch manifest", **_place(connection, repository, reference)):
            return await self._inner.manifest(connection, repository, reference)

    @asynccontextmanager
    async def blob(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        *,
        offset: int = 0,
        etag: str | None = None,
    ) -> AsyncIterator[BlobBody]:
        place = _place(connection, repository, digest)
        whole = self._tracer.begin("fetch blob", offset=offset, **place)
        try:
            async with AsyncExitStack() as stack:
                # Not current over the yield: that may be left in another context.
                with self._tracer.span("ask for blob", offset=offset, **place):
                    body = await stack.enter_async_context(
                        self._inner.blob(connection, repository, digest, offset=offset, etag=etag)
                    )
                yield body
        finally:
            whole.end()

    async def blob_size(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> int | None:
        with self._tracer.span("confirm blob", **_place(connection, repository, digest)):
            return await self._inner.blob_size(connection, repository, digest)


def _place(connection: Connection, repository: Repository, digest: Digest) -> dict[str, str]:
    return {
        "host": str(connection.host),
        "repository": str(repository),
        "digest": str(digest),
    }
