"""What the use cases of a pull ask of the rooms around them.

Small protocols, so that the use cases know neither the HTTP client nor the disk: `app.py` wires
`upstream.client.RegistryClient` and `serving.blobs.cache.BlobCache` behind them.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from facade.oci.digest import Digest
from facade.oci.manifest import Descriptor
from facade.oci.reference import Repository
from facade.oci.request import PullRequest
from facade.serving.blobs.port import BlobBody, BlobSource, BlobStream
from facade.serving.trust.closure import Allowed
from facade.target import SignedTarget
from facade.upstream.connection import Connection


class FetchedManifest(Protocol):
    """A manifest as a registry gave it."""

    @property
    def data(self) -> bytes:
        """Its bytes."""
        ...


class UpstreamRegistry(Protocol):
    """A connected registry, spoken to."""

    async def manifest(
        self, connection: Connection, repository: Repository, reference: Digest, /
    ) -> FetchedManifest:
        """A manifest by digest. Raises Upstream, Integrity, Denied."""
        ...

    def blob(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        /,
        *,
        offset: int = 0,
        etag: str | None = None,
    ) -> AbstractAsyncContextManager[BlobBody]:
        """A blob's body from `offset`. Raises Upstream, Denied."""
        ...

    async def blob_size(
        self, connection: Connection, repository: Repository, digest: Digest, /
    ) -> int | None:
        """Its size by HEAD; None for 404 alone. Raises Upstream, Denied."""
        ...


class Blobs(Protocol):
    """Verified content: hit, join or start."""

    async def get(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        source: BlobSource,
        /,
    ) -> BlobStream:
        """Content of `size` bytes for one reader. Raises Integrity, Upstream, Denied."""
        ...

    def hot(
        self, connection: Connection, repository: Repository, digest: Digest, size: int, /
    ) -> BlobStream | None:
        """What `get` would give, if nothing has to be waited for until its first bytes, which are right;
        None tells nothing.
        """
        ...

    async def held(
        self, connection: Connection, repository: Repository, digest: Digest, limit: int, /
    ) -> bytes | None:
        """All of it, if it is here for that repository and has at most `limit` bytes; asks nobody.

        Raises Integrity when it does not match any more; it is set aside and reported by then.
        """
        ...

    async def put(
        self, connection: Connection, repository: Repository, digest: Digest, data: bytes, /
    ) -> bool:
        """Keep what is at hand and came from that repository; whether it is kept."""
        ...


class PullObserver(Protocol):
    """Counts what goes wrong in a pull."""

    def integrity_failed(self, host: str, repository: str, digest: str, detail: str) -> None:
        """Bytes did not match."""
        ...


class Authorisation(Protocol):
    """Decides from signed metadata; `serving.trust`."""

    async def decide(self, fleet: str, request: PullRequest, /) -> Allowed:
        """Raises Denied (NOT_SIGNED), or Unavailable when it cannot be decided."""
        ...

    def decide_now(self, fleet: str, request: PullRequest, /) -> Allowed | None:
        """The decision, if it is known without waiting; raises like `decide`."""
        ...

    async def referrers(self, fleet: str, request: PullRequest, /) -> tuple[Descriptor, ...]:
        """What was signed along with an image; raises like `decide`."""
        ...

    async def target(self, fleet: str, path: str, /) -> SignedTarget | None:
        """The fleet's signed target at this TUF path; raises Unavailable."""
        ...

    def learn(self, fleet: str, request: PullRequest, data: bytes, /) -> None:
        """Take note of a verified manifest that is being served: its children come next."""
        ...
