"""A registry without a socket, for use cases of the catalog: `control.catalog.ports.Registry`.

Guarantees: what was added is there until it is forgotten; what is not there is refused as the real client
refuses it; every request is counted. Checks no digest: a test may put wrong bytes under one.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from facade.control.connections.model import StoredConnection
from facade.errors import FacadeError, NotFound, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import OCI_INDEX, Index, parse_manifest
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.upstream.connection import Connection
from facade.upstream.pour import Basin, pour_chunks
from tests.support.manifests import PlainImage


@dataclass(frozen=True)
class Held:
    """A manifest as it is answered."""

    data: bytes
    digest: Digest
    media_type: str = ""


class Page(list[str]):
    """A page of tags, with the mark that `upstream.listing.TagPage` has."""

    more = False


@dataclass
class _Body:
    data: bytes

    async def pour(self, basin: Basin) -> None:
        await pour_chunks(self.chunks(), basin)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.data[:10]
        yield self.data[10:]


@dataclass
class MemoryRegistry:
    """See the module.

    Arguments:
        failures: raised instead of the answer to the manifest of that reference.
    """

    manifests: dict[str, Held] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    sizes: dict[Digest, int | None] = field(default_factory=dict)
    pages: list[list[str]] = field(default_factory=list)
    clipped: bool = False
    referring: dict[Digest, bytes] = field(default_factory=dict)
    failures: dict[str, FacadeError] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def add(self, data: bytes, *tags: str, media_type: str = "") -> Digest:
        """Hold a manifest, under its digest and tags."""
        held = Held(data, Digest.of(data), media_type)
        for name in (str(held.digest), *tags):
            self.manifests[name] = held
        return held.digest

    def add_blobs(self, *blobs: bytes) -> None:
        """Hold blobs."""
        self.blobs |= {Digest.of(blob): blob for blob in blobs}

    def add_image(self, image: PlainImage, *tags: str) -> Digest:
        """Hold all of an image."""
        for platform, manifest in image.manifests.items():
            self.add(manifest)
            self.add_blobs(image.config(platform), *image.layers(platform))
        return self.add(image.index, *tags)

    async def ping(self, connection: Connection) -> None:
        self.asked["ping"] += 1
        if "ping" in self.failures:
            raise self.failures["ping"]

    async def manifest(
        self, connection: Connection, repository: Repository, reference: Digest | Tag
    ) -> Held:
        name = str(reference)
        self.asked[name] += 1
        if name in self.failures:
            raise self.failures[name]
        if name not in self.manifests:
            raise missing(f"{connection.host} has no {name} in {repository}.")
        return self.manifests[name]

    async def blob_size(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> int | None:
        self.asked[str(digest)] += 1
        if str(digest) in self.failures:
            raise self.failures[str(digest)]
        if digest in self.sizes:
            return self.sizes[digest]
        return len(self.blobs[digest]) if digest in self.blobs else None

    @asynccontextmanager
    async def blob(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> AsyncIterator[_Body]:
        yield _Body(self.blobs[digest])

    async def tags(
        self, connection: Connection, repository: Repository, *, max_pages: int, max_seconds: float
    ) -> AsyncIterator[list[str]]:
        if "tags" in self.failures:
            raise self.failures["tags"]
        for number, names in enumerate(self.pages, start=1):
            page = Page(names)
            page.more = self.clipped and number == len(self.pages)
            yield page

    async def referrers(
        self, connection: Connection, repository: Repository, digest: Digest
    ) -> Index:
        data = self.referring.get(digest)
        index = Index(OCI_INDEX, ()) if data is None else parse_manifest(data)
        assert isinstance(index, Index)
        return index


@dataclass(frozen=True)
class OneConnection:
    """A lookup that knows a single connection."""

    connection: Connection

    def get(self, host: RegistryHost) -> StoredConnection:
        if host != self.connection.host:
            raise NotFound(f"{host} is not connected.", reason=Reason.HOST_NOT_CONNECTED)
        return StoredConnection(self.connection, "robot", "test", 0.0, 0.0)


def missing(message: str) -> Upstream:
    """What the real client raises for a 404."""
    return Upstream(message, reason=Reason.UPSTREAM_NOT_FOUND, status=404)


@dataclass
class MemoryManifests:
    """`control.catalog.ports.ManifestStore` in memory."""

    kept: dict[tuple[str, str, Digest], bytes] = field(default_factory=dict)

    async def keep(
        self, registry: RegistryHost, repository: Repository, manifests: Mapping[Digest, bytes]
    ) -> None:
        for digest, data in manifests.items():
            self.kept[str(registry), str(repository), digest] = data

    async def get(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        return self.kept.get((str(registry), str(repository), digest))


def digests_of(image: PlainImage) -> Sequence[Digest]:
    """The digests of its manifests, the index first."""
    return [Digest.of(data) for data in image.every_manifest]
