"""Content that is in the store and that a repository proved to have, given without asking anybody.

Guarantees: nothing is given for a repository that did not prove it (trust.md, "Possession"), nor while
that cannot be told. Reading marks it as used.
"""

import structlog

from facade.errors import Unavailable
from facade.serving.blobs.port import BlobKey, BlobReader, BlobStore, Possession
from facade.serving.blobs.streams import Spoiled, StoredStream

log = structlog.get_logger(__name__)


async def open_held(store: BlobStore, possession: Possession, key: BlobKey) -> BlobReader | None:
    """The object, open; None when it is not here for that repository."""
    reader = await store.open(key.digest)
    if reader is None:
        return None
    has = False
    try:
        has = await possession.has(key)
    except Unavailable as error:
        log.warning("possession_unknown", error=error.message)
    finally:
        if not has:
            reader.close()
    return reader if has else None


async def read_held(
    store: BlobStore, possession: Possession, key: BlobKey, limit: int, spoiled: Spoiled
) -> bytes | None:
    """All of it; None also when it has more than `limit` bytes.

    Arguments:
        spoiled: awaited when a block does not match, before Integrity is raised.
    """
    reader = await open_held(store, possession, key)
    if reader is None:
        return None
    stream = StoredStream(reader, spoiled)
    try:
        if reader.size > limit:
            return None
        possession.touch(key.digest)
        return b"".join([bytes(view) async for view in stream.chunks()])
    finally:
        await stream.aclose()
