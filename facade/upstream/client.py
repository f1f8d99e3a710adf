"""The registry client: the pull side of OCI distribution, for both wings.

Guarantees: a manifest that is returned was read whole, within MAX_MANIFEST_BYTES, and hashes to what
was asked for and to what the registry claimed; a request is authorized, redirected and retried as
the policies of this package say; every error says who failed and what to do. Does not verify
blobs: their reader knows digest and size, and checks both. A blob that breaks after its first
byte is resumed by its reader, not here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from aiohttp import TraceConfig
from aiohttp.abc import AbstractResolver
from yarl import URL

from facade.clock import Clock
from facade.errors import Invalid, Upstream
from facade.oci.digest import Digest
from facade.oci.manifest import MANIFEST_MEDIA_TYPES, Index
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.target import MAX_MANIFEST_BYTES
from facade.upstream.addresses import AddressPolicy
from facade.upstream.body import BlobBody, TooLarge, discard, open_body, read_small
from facade.upstream.connection import Authorizer, Connection, Scope
from facade.upstream.exchange import Exchanger, Known, Reply, Request
from facade.upstream.fetched import FetchedManifest, check_manifest
from facade.upstream.gate_port import Gate, NoGate
from facade.upstream.listing import MAX_PAGES, MAX_SECONDS, list_tags
from facade.upstream.observer import NullObserver, UpstreamObserver
from facade.upstream.referrers import find_referrers
from facade.upstream.refusals import refusal
from facade.upstream.retry import RetryPolicy, Timeouts, parse_retry_after
from facade.upstream.transport import Transport

__all__ = ["FetchedManifest", "RegistryClient"]

_ACCEPT_MANIFESTS = {"Accept": ", ".join(MANIFEST_MEDIA_TYPES)}


class RegistryClient:
    """Reads from connected registries. One per process; any number of requests at once.

    Arguments:
        addresses: which network addresses may be connected to.
        resolver: resolves host names; the system's when None. Closed with the client.
        gate: in front of each registry: circuit and budget; none when None.
        watchers: see `transport.Transport`.
        known: authorizations that need not be asked for (`RememberingAuthorizer.known`).
    """

    def __init__(
        self,
        *,
        authorizer: Authorizer,
        addresses: AddressPolicy,
        clock: Clock,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        observer: UpstreamObserver | None = None,
        resolver: AbstractResolver | None = None,
        gate: Gate | None = None,
        watchers: Sequence[TraceConfig] = (),
        known: Known = lambda *_: None,
    ) -> None:
        self._clock = clock
        self._timeouts = timeouts or Timeouts()
        self._transport = Transport(
            addresses=addresses, timeouts=self._timeouts, resolver=resolver, watchers=watchers
        )
        self._exchanger = Exchanger(
            transport=self._transport,
            authorizer=authorizer,
            clock=clock,
            timeouts=self._timeouts,
            retry=retry or RetryPolicy(),
            observer=observer or NullObserver(),
            gate=gate or NoGate(),
            known=known,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def ping(self, connection: Connection) -> None:
        """`GET /v2/` through the whole authorization (distribution-spec, "Determining Support").

        Raises Upstream: unreachable, refused, or no registry.
        """
        reply = await self.open(connection, "GET", "/v2/", Scope(None))
        if reply.response.status != 200:
            raise await self.refused(connection, reply, "GET /v2/")
        await discard(reply.response)

    async def manifest(
        self, connection: Connection, repository: Repository, reference: Digest | Tag
    ) -> FetchedManifest:
        """Fetch a manifest or index whole, all manifest types accepted.

        Raises Upstream; Integrity when the bytes do not hash to `reference` or to the registry's
        own Docker-Content-Digest.
        """
        what = f"the manifest {reference} of {repository}"
        reply = await self.open(
            connection,
            "GET",
            f"/v2/{repository}/manifests/{reference}",
            Scope(repository),
            _ACCEPT_MANIFESTS,
        )
        if reply.response.status != 200:
            raise await self.refused(connection, reply, what)
        data = await self.read_document(connection, reply, MAX_MANIFEST_BYTES, what)
        return check_manifest(connection, reference, data, reply.response.headers, what)

    async def manifest_digest(
        self, connection: Connection, repository: Repository, tag: Tag
    ) -> Digest | None:
        """Where a tag points, by HEAD, as the registry claims; None when it does not say.

        Costs no pull on registries that count GETs. Raises Upstream, for 404 too.
        """
        path = f"/v2/{repository}/manifests/{tag}"
        reply = await self.open(connection, "HEAD", path, Scope(repository), _ACCEPT_MANIFESTS)
        await discard(reply.response)
        if reply.response.status != 200:
            raise await self.refused(connection, reply, f"the manifest {tag} of {repository}")
        try:
            return Digest.parse(reply.response.headers.get("Docker-Content-Digest", ""))
        except Invalid:
            return None

    async def blob_size(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> int | None:
        """A blob's size in bytes by HEAD; None when the repository does not have it (404 only).

        Raises Upstream, also when the registry does not tell the size.
        """
        what = f"the blob {digest} of {repository}"
        path = f"/v2/{repository}/blobs/{digest}"
        reply = await self.open(connection, "HEAD", path, Scope(repository))
        await discard(reply.response)
        if reply.response.status == 404:
            return None
        if reply.response.status != 200:
            raise await self.refused(connection, reply, what)
        size = reply.response.headers.get("Content-Length", "")
        if not (size.isascii() and size.isdigit()):
            raise Upstream(
                f"{connection.host} does not tell the size of {what}. It cannot be used.",
                reason=Reason.UPSTREAM_REFUSED,
                status=200,
            )
        return int(size)

    def blob(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        *,
        offset: int = 0,
        etag: str | None = None,
    ) -> AbstractAsyncContextManager[BlobBody]:
        """Open a blob for reading, from `offset` on where the upstream can do that.

        Arguments:
            offset: bytes that the caller has already. The body's own `offset` tells where it
                really starts: there, or at 0.
            etag: the strong ETag of the transfer that is resumed (RFC 9110, 13.1.5).

        Raises Upstream before the first byte; `BlobBody.chunks` raises it after.
        """
        return _Opening(partial(self._open_blob, connection, repository, digest, offset, etag))

    async def _open_blob(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        offset: int,
        etag: str | None,
    ) -> BlobBody:
        path = f"/v2/{repository}/blobs/{digest}"
        headers: dict[str, str] = {}
        if offset > 0:
            headers["Range"] = f"bytes={offset}-"
            if etag is not None:
                headers["If-Range"] = etag
        reply = await self.open(connection, "GET", path, Scope(repository), headers)
        if offset > 0 and reply.response.status == 416:
            await discard(reply.response)
            reply = await self.open(connection, "GET", path, Scope(repository))
        if reply.response.status not in (200, 206):
            raise await self.refused(connection, reply, f"the blob {digest} of {repository}")
        return open_body(
            reply.response,
            asked=offset,
            host=str(connection.host),
            clock=self._clock,
            timeouts=self._timeouts,
        )

    def tags(
        self,
        connection: Connection,
        repository: Repository,
        *,
        max_pages: int = MAX_PAGES,
        max_seconds: float = MAX_SECONDS,
    ) -> AsyncIterator[list[str]]:
        """A repository's tags, one list per page; see `listing.list_tags`."""
        return list_tags(
            self,
            connection,
            repository,
            clock=self._clock,
            max_pages=max_pages,
            max_seconds=max_seconds,
        )

    async def referrers(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> Index:
        """What refers to `digest`: signatures, SBOMs; see `referrers.find_referrers`."""
        return await find_referrers(self, connection, repository, digest)

    async def open(
        self,
        connection: Connection,
        method: str,
        path: str,
        scope: Scope,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """Send a request for `path` (with query) on the registry; the caller reads or closes it."""
        url = URL(connection.base_url + path, encoded=True)
        return await self._exchanger.open(connection, Request(method, url, headers or {}), scope)

    async def refused(self, connection: Connection, reply: Reply, what: str) -> Upstream:
        """The error for an answer of the wrong status; closes the answer."""
        response = reply.response
        return refusal(
            str(connection.host),
            response.status,
            await discard(response),
            what=what,
            sent=reply.sent,
            retry_after=parse_retry_after(response.headers.get("Retry-After"), self._clock.time()),
        )

    async def read_document(
        self, connection: Connection, reply: Reply, limit: int, what: str
    ) -> bytes:
        """A 200 answer's body, at most `limit` bytes; closes the answer.

        Raises Upstream when it is larger, encoded, broken off or too slow.
        """
        response = reply.response
        try:
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if encoding not in ("", "identity"):
                raise Upstream(
                    f"{connection.host} sends {what} compressed although it was asked not to.",
                    reason=Reason.UPSTREAM_REFUSED,
                    status=response.status,
                )
            return await read_small(response, limit, self._timeouts.small_body)
        except TooLarge:
            raise Upstream(
                f"{connection.host} sends {what} with more than {limit} bytes; that is refused.",
                reason=Reason.UPSTREAM_REFUSED,
                status=response.status,
            ) from None
        finally:
            response.close()


class _Opening:
    """What `async with` needs, without a generator's cost: every blob has one."""

    __slots__ = ("_body", "_open")

    def __init__(self, open_body: Callable[[], Awaitable[BlobBody]]) -> None:
        self._open = open_body

    async def __aenter__(self) -> BlobBody:
        self._body = await self._open()
        return self._body

    async def __aexit__(self, *_: object) -> None:
        self._body.close()
