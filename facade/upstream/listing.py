"""A repository's tags, page by page (OCI distribution-spec, "Listing Tags").

Guarantees: at most `max_pages` pages, MAX_PAGE_BYTES each, within `max_seconds`; `Link` is followed
on the registry's own origin only, and never back to a page that was read; what is no tag by
grammar is left out. Whether the list was clipped is `TagPage.more`.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from yarl import URL

from facade.clock import Clock
from facade.errors import Invalid, Upstream
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.upstream.connection import Connection, Scope
from facade.upstream.links import next_page

if TYPE_CHECKING:
    from facade.upstream.client import RegistryClient

PAGE_SIZE = 1000
MAX_PAGES = 100
MAX_SECONDS = 60.0
MAX_PAGE_BYTES = 4 * 1024 * 1024
INLINE_BYTES = 64 * 1024
"""The largest page that is read on the loop. A whole one of a million words that are no tags takes two seconds."""


class TagPage(list[str]):
    """One page of tags, in the registry's order.

    `more` is True when the registry has further pages that will not be read: the list is clipped.
    """

    more: bool = False


async def list_tags(
    client: "RegistryClient",
    connection: Connection,
    repository: Repository,
    *,
    clock: Clock,
    max_pages: int,
    max_seconds: float,
) -> AsyncIterator[list[str]]:
    """Yield each page as a `TagPage`. Raises Upstream."""
    started = clock.monotonic()
    path: str | None = f"/v2/{repository}/tags/list?n={PAGE_SIZE}"
    read: set[str] = set()
    while path is not None:
        read.add(path)
        page, following = await _page(client, connection, repository, path)
        path = None if following is None or following in read else following
        if len(read) >= max_pages or clock.monotonic() - started >= max_seconds:
            page.more = following is not None
            path = None
        yield page


async def _page(
    client: "RegistryClient", connection: Connection, repository: Repository, path: str
) -> tuple[TagPage, str | None]:
    what = f"the tags of {repository}"
    reply = await client.open(connection, "GET", path, Scope(repository))
    if reply.response.status != 200:
        raise await client.refused(connection, reply, what)
    data = await client.read_document(connection, reply, MAX_PAGE_BYTES, what)
    try:
        inline = len(data) <= INLINE_BYTES
        page = read_tags(data) if inline else await asyncio.to_thread(read_tags, data)
    except ValueError as error:
        raise Upstream(
            f"{connection.host} answers {what} with something that is no tag list. Check that it "
            "is a container registry.",
            reason=Reason.UPSTREAM_REFUSED,
            status=200,
        ) from error
    here = URL(connection.base_url + path, encoded=True)
    url = next_page(here, reply.response.headers.getall("Link", ()))
    return page, None if url is None else url.raw_path_qs


def read_tags(data: bytes) -> TagPage:
    """The tags that an answer lists. Raises ValueError when it is no tag list."""
    try:
        tags = json.loads(data)["tags"]
        # docker-registry answers null for a repository without tags.
        return TagPage(tag for tag in tags or () if isinstance(tag, str) and _is_tag(tag))
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("no tag list") from error


def _is_tag(text: str) -> bool:
    try:
        Tag.parse(text)
    except Invalid:
        return False
    return True
