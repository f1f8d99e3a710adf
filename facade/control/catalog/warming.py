"""Filling the cache ahead of the devices, one blob after the other, so that devices come first.

Guarantees: each blob goes the way of every pull (verified, one transfer); one that fails does not keep
the others out, and is told with its reason.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.upstream.connection import Connection
from facade.wings import CachePort, WarmResult

log = structlog.get_logger(__name__)

STEP = "warming"

Progress = Callable[[Mapping[str, Any]], None]


async def warm(
    cache: CachePort,
    connection: Connection,
    repository: Repository,
    blobs: Iterable[tuple[Digest, int]],
    *,
    tag: str,
    progress: Progress,
) -> Sequence[WarmResult]:
    """Fetch blobs into the cache; one result each.

    Arguments:
        blobs: (digest, bytes).
        tag: what the progress is about.
        progress: is called with `{"tag", "step": "warming", "done", "total"}`, in blobs, at the
            start and after each.
    """
    todo = tuple(blobs)
    results: list[WarmResult] = []
    for digest, size in todo:
        progress({"tag": tag, "step": STEP, "done": len(results), "total": len(todo)})
        result = await cache.warm(connection, repository, digest, size)
        if result.error is not None:
            log.warning("warm_failed", digest=str(digest), error=result.error)
        results.append(result)
    progress({"tag": tag, "step": STEP, "done": len(results), "total": len(todo)})
    return tuple(results)
