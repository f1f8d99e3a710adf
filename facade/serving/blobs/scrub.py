"""Hashing again what is kept, before a reader finds that it rotted.

Guarantees: every object that is there from start to end of a pass is hashed whole; what does not
match is quarantined and told; objects that the index does not know come back into its order.
Paced, so that readers do not notice. Does not bring anything back: the next request does.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from typing import Protocol

import structlog

from facade.clock import Clock
from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.port import BlobReader, BlobStore
from facade.serving.blobs.threads import run_to_end
from facade.serving.blobs.verify import StreamVerifier

log = structlog.get_logger(__name__)

IDLE_BYTES_PER_SECOND = 8 * 1024 * 1024
_PAGE = 256


class Register(Protocol):
    """What scrubbing needs of the index (`possession.PossessionIndex`)."""

    async def notice(self, objects: Iterable[tuple[Digest, int]]) -> None:
        """Take objects into the order that it does not know."""
        ...

    async def forget(self, digests: Collection[Digest]) -> None:
        """Objects are gone."""
        ...


class Shelves(BlobStore, Protocol):
    """A store that keeps what it quarantined."""

    def set_aside(self, digest: Digest) -> bool:
        """Whether it is among that. Blocks. Raises OSError."""
        ...


class Scrubber:
    """Walks over a store.

    Arguments:
        executor: threads for listing and hashing.
        spoiled: told of each object that did not match.
    """

    def __init__(
        self,
        *,
        store: Shelves,
        register: Register,
        clock: Clock,
        executor: Executor,
        spoiled: Callable[[Digest, str], None],
    ) -> None:
        self._store = store
        self._register = register
        self._clock = clock
        self._executor = executor
        self._spoiled = spoiled

    async def scrub(self, bytes_per_second: float | None = None) -> tuple[int, int]:
        """One pass over everything: (objects checked, objects quarantined).

        Arguments:
            bytes_per_second: the pace; None = as fast as it goes.

        Raises Unavailable when the index cannot be used, OSError when the store cannot.
        """
        checked = quarantined = 0
        found = self._store.objects()
        while page := await run_to_end(self._executor, partial(_take, found)):
            await self._register.notice(page)
            for digest, _ in page:
                verdict = await self._check(digest, bytes_per_second)
                if verdict is None:
                    continue
                checked += 1
                quarantined += not verdict
        log.info("scrubbed", objects=checked, count=quarantined)
        return checked, quarantined

    async def take_in(self) -> int:
        """Tell the index of every object, unhashed; how many there are. Raises Unavailable."""
        count, found = 0, self._store.objects()
        while page := await run_to_end(self._executor, partial(_take, found)):
            await self._register.notice(page)
            count += len(page)
        return count

    async def _check(self, digest: Digest, pace: float | None) -> bool | None:
        """Whether the object is right; None when it was removed meanwhile."""
        reader = await self._store.open(digest)
        if reader is None:
            return await self._missing(digest)
        try:
            await self._hash(reader, digest, pace)
        except Integrity as error:
            log.error("scrub_found_spoiled", digest=str(digest), detail=error.message)
            self._spoiled(digest, error.message)
            await self._store.quarantine(digest)
            await self._register.forget([digest])
            return False
        finally:
            reader.close()
        return True

    async def _missing(self, digest: Digest) -> bool | None:
        """As `_check`, of what cannot be opened: whoever set it aside, to open it or to read it, told so."""
        if not await run_to_end(self._executor, partial(self._store.set_aside, digest)):
            return None
        await self._register.forget([digest])
        return False

    async def _hash(self, reader: BlobReader, digest: Digest, pace: float | None) -> None:
        verifier = StreamVerifier(digest, reader.size)
        while verifier.seen < reader.size:
            view = await reader.read(verifier.seen, reader.size - verifier.seen)
            await run_to_end(self._executor, partial(verifier.update, view))
            if pace is not None:
                await self._clock.sleep(len(view) / pace)
        verifier.verdict()


def _take(found: Iterator[tuple[Digest, int]]) -> list[tuple[Digest, int]]:
    return list(islice(found, _PAGE))
