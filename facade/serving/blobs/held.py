"""Content that is in the store and that a repository proved to have, given without asking anybody.

Guarantees: nothing is given for a repository that did not prove it (trust.md, "Possession"), nor while
that cannot be told. Reading marks it as used.
"""

from concurrent.futures import Executor

import structlog

from facade.errors import Integrity, Unavailable
from facade.serving.blobs.port import (
    BlobKey,
    BlobReader,
    BlobStore,
    HotPossession,
    HotStore,
    Ingest,
    Possession,
)
from facade.serving.blobs.streams import Spoiled, StoredStream
from facade.serving.blobs.threads import run_to_end

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


def open_hot(
    store: HotStore, possession: HotPossession, key: BlobKey, size: int, spoiled: Spoiled
) -> StoredStream | None:
    """A stream of all of it, if its first bytes are had, and right, without waiting for anything. None
    tells nothing: whatever is wrong with it is found out again by who may wait.

    Arguments:
        size: bytes, more than none.
        spoiled: awaited when a later block does not match, before Integrity is raised.
    """
    if not possession.remembers(key):
        return None
    reader = store.opened(key.digest)
    if reader is None:
        return None
    first = None
    try:
        if reader.size == size:
            first = reader.read_now(0, size)
    except Integrity:
        pass
    finally:
        if first is None:
            reader.close()
    if first is None:
        return None
    possession.touch(key.digest)
    return StoredStream(reader, spoiled, first)


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


async def keep(store: BlobStore, key: BlobKey, data: bytes, executor: Executor) -> None:
    """Put into the store what is the digest's, unless it is there. Raises Unavailable."""
    known = await store.open(key.digest)
    if known is not None:
        known.close()
        return
    ingest = await store.ingest(key, len(data), lambda _: None)
    try:
        await run_to_end(executor, lambda: _write_all(ingest, data))
    finally:
        await ingest.close(keep=False)


def _write_all(ingest: Ingest, data: bytes) -> None:
    ingest.restart()
    ingest.write(memoryview(data))
    ingest.publish()
