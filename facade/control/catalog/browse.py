"""Looking into a connected registry: tags, and what a tag is just now.

Guarantees: bounded in pages, time and bytes; a list that was clipped says so. The order of tags is a
best effort and labelled so. Nothing here is signed or trusted.
"""

import asyncio
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from facade.control.catalog.ordering import is_hidden, order_tags
from facade.control.catalog.ports import ConnectionLookup, Registry
from facade.control.catalog.summary import ManifestSummary, Summary
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.upstream.connection import Connection

MAX_PAGES = 100
MAX_TAGS = 100_000
"""Tags that are read: a registry may put more on a page than it was asked for."""
MAX_SECONDS = 45.0
ORDERED_BY = "best-effort"


@dataclass(frozen=True, slots=True)
class TagList:
    """Tags of a repository, newest-likely first.

    Arguments:
        clipped: the registry has more than were read.
        hidden: tools' own tags that were left out.
        read: tags that were read, those left out included.
        last: the last tag read, in the registry's order: how far a clipped list got.
    """

    repository: Repository
    tags: tuple[str, ...]
    clipped: bool
    pages: int
    hidden: int = 0
    read: int = 0
    last: str | None = None
    ordered_by: str = ORDERED_BY


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
        pages, clipped, last = 0, False, None
        async for page in self._registry.tags(
            connection, repository, max_pages=MAX_PAGES, max_seconds=MAX_SECONDS
        ):
            pages += 1
            room = MAX_TAGS - len(found)
            found.update(page[:room])
            last = page[:room][-1] if page[:room] else last
            clipped = getattr(page, "more", False) or len(page) > room
            if clipped:
                break
        own = {tag for tag in found if is_hidden(tag)}
        shown = found if hidden else found - own
        if match is not None:
            shown = set(fnmatch.filter(shown, match))
        # Sorting 100,000 tags takes a second: not on the event loop.
        ordered = await asyncio.to_thread(order_tags, shown)
        left_out = 0 if hidden else len(own)
        return TagList(
            *(repository, tuple(ordered), clipped, pages, left_out), read=len(found), last=last
        )

    async def first_tags(self, connection: Connection, repository: Repository) -> Sequence[str]:
        """The tags of the first page, newest-likely first. Raises Upstream."""
        async for page in self._registry.tags(
            connection, repository, max_pages=1, max_seconds=MAX_SECONDS
        ):
            own = {tag for tag in page[:MAX_TAGS] if not is_hidden(tag)}
            return await asyncio.to_thread(order_tags, own)
        return []

    async def manifest(
        self, host: RegistryHost, repository: Repository, reference: Tag | Digest
    ) -> ManifestSummary:
        """What `reference` is now.

        Raises NotFound when the host is not connected, Upstream, Invalid for what is no image.
        """
        connection = self._connections.get(host).connection
        fetched = await self._registry.manifest(connection, repository, reference)
        return await Summary(self._registry, connection, repository).of(fetched)
