"""Looking into a connected registry: tags, and what a tag is just now.

Guarantees: bounded in pages, time and bytes; a list that was clipped says so. The order of tags is a
best effort and labelled so. Nothing here is signed or trusted.
"""

import asyncio
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from facade.control.catalog.closure import read_top
from facade.control.catalog.image_config import platform_of, read_config
from facade.control.catalog.ordering import is_hidden, order_tags
from facade.control.catalog.ports import ConnectionLookup, Fetched, Registry
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import ImageManifest, Index
from facade.oci.reference import Repository, Tag
from facade.upstream.connection import Connection

MAX_PAGES = 100
MAX_SECONDS = 45.0
ORDERED_BY = "best-effort"

_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True)
class TagList:
    """Tags of a repository, newest-likely first.

    Arguments:
        clipped: the registry has more than were read.
        hidden: tools' own tags that were left out.
    """

    repository: Repository
    tags: tuple[str, ...]
    clipped: bool
    pages: int
    hidden: int = 0
    ordered_by: str = ORDERED_BY


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """What a reference is just now.

    Arguments:
        size: bytes of the manifest itself.
        platforms: (platform, digest, bytes of its manifest).
        total_bytes: config and layers of an image; None for an index.
        created: as the image says, RFC 3339.
    """

    digest: Digest
    media_type: str
    size: int
    platforms: tuple[tuple[str, Digest, int], ...] = ()
    total_bytes: int | None = None
    created: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


class Browse:
    """See the module."""

    def __init__(self, connections: ConnectionLookup, registry: Registry) -> None:
        self._connections = connections
        self._registry = registry

    async def tags(
        self,
        host: RegistryHost,
        repository: Repository,
        *,
        hidden: bool = False,
        match: str | None = None,
    ) -> TagList:
        """The tags, newest-likely first.

        Arguments:
            hidden: cosign's and other tools' own tags too.
            match: a shell pattern, like "v1.*".

        Raises NotFound when the host is not connected, Upstream.
        """
        connection = self._connections.get(host).connection
        found: set[str] = set()
        pages, clipped = 0, False
        async for page in self._registry.tags(
            connection, repository, max_pages=MAX_PAGES, max_seconds=MAX_SECONDS
        ):
            pages += 1
            found.update(page)
            clipped = getattr(page, "more", False)
        own = {tag for tag in found if is_hidden(tag)}
        shown = found if hidden else found - own
        if match is not None:
            shown = set(fnmatch.filter(shown, match))
        # Sorting 100,000 tags takes a second: not on the event loop.
        ordered = await asyncio.to_thread(order_tags, shown)
        left_out = 0 if hidden else len(own)
        return TagList(repository, tuple(ordered), clipped, pages, left_out)

    async def first_tags(self, connection: Connection, repository: Repository) -> Sequence[str]:
        """The tags of the first page, newest-likely first. Raises Upstream."""
        async for page in self._registry.tags(
            connection, repository, max_pages=1, max_seconds=MAX_SECONDS
        ):
            return order_tags(tag for tag in page if not is_hidden(tag))
        return []

    async def manifest(
        self, host: RegistryHost, repository: Repository, reference: Tag | Digest
    ) -> ManifestSummary:
        """What `reference` is now.

        Raises NotFound when the host is not connected, Upstream, Invalid for what is no image.
        """
        connection = self._connections.get(host).connection
        fetched = await self._registry.manifest(connection, repository, reference)
        top = read_top(fetched)
        if isinstance(top, Index):
            return _of_index(fetched, top)
        config = await read_config(self._registry, connection, repository, top.config)
        platform = platform_of(config)
        created = config.get("created")
        return ManifestSummary(
            digest=fetched.digest,
            media_type=top.media_type,
            size=len(fetched.data),
            platforms=((str(platform), fetched.digest, len(fetched.data)),) if platform else (),
            total_bytes=_total(top),
            created=created if isinstance(created, str) else top.annotations.get(_CREATED),
            annotations=top.annotations,
        )


def _of_index(fetched: Fetched, index: Index) -> ManifestSummary:
    return ManifestSummary(
        digest=fetched.digest,
        media_type=index.media_type,
        size=len(fetched.data),
        platforms=tuple(
            (str(child.platform), child.digest, child.size)
            for child in index.manifests
            if child.platform is not None and child.platform.os != "unknown"  # attestations
        ),
        created=index.annotations.get(_CREATED),
        annotations=index.annotations,
    )


def _total(image: ImageManifest) -> int:
    return sum({blob.digest: blob.size for blob in (image.config, *image.layers)}.values())
