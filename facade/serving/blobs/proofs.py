"""Whether a repository may have what the store has: it proved to have it, or its registry confirms that.

Guarantees (trust.md, "Possession"): nobody is told yes for a repository whose bytes never came from it
unless content of that same registry is at hand and the registry confirms by HEAD, with the size, that the
repository has it. Asks the registry once for all who wait.
"""

import asyncio

import structlog

from facade.errors import Unavailable
from facade.serving.blobs.port import BlobKey, BlobSource, Possession

log = structlog.get_logger(__name__)


class Proofs:
    """What `possession` knows, and what registries confirm."""

    def __init__(self, possession: Possession) -> None:
        self._possession = possession
        self._confirming: dict[tuple[BlobKey, int], asyncio.Task[bool]] = {}

    def close(self) -> None:
        """Stop asking."""
        for task in list(self._confirming.values()):
            task.cancel()

    async def may_have(self, key: BlobKey, size: int, origin: str, source: BlobSource) -> bool:
        """Whether it may: it had it, or, where content of that registry is here, says so now.

        Arguments:
            size: bytes that it must have there.
            origin: text of the registry that the stored content came from.

        Raises Upstream, Denied.
        """
        try:
            if await self._possession.has(key):
                return True
            same_registry = origin == str(key.host) or await self._possession.at_registry(
                key.host, key.digest
            )
        except Unavailable as error:
            log.warning("possession_unknown", error=error.message)
            same_registry = origin == str(key.host)  # the content itself says so
        return same_registry and await self._confirmed(key, size, source)

    async def _confirmed(self, key: BlobKey, size: int, source: BlobSource) -> bool:
        """Ask the registry, once for all who wait. Raises Upstream, Denied."""
        task = self._confirming.get((key, size))
        if task is None:
            task = asyncio.create_task(self._confirm(key, size, source))
            self._confirming[key, size] = task
            task.add_done_callback(lambda task: self._confirm_done(key, size, task))
        return await asyncio.shield(task)

    async def _confirm(self, key: BlobKey, size: int, source: BlobSource) -> bool:
        if await source.confirm() != size:
            return False
        try:
            await self._possession.add(key, size)
        except Unavailable as error:
            # The registry has just confirmed it; later processes ask again.
            log.warning("possession_not_recorded", error=error.message)
            self._possession.proven(key)
        return True

    def _confirm_done(self, key: BlobKey, size: int, task: "asyncio.Task[bool]") -> None:
        del self._confirming[key, size]
        if not task.cancelled():
            task.exception()  # waiters raise it; none may be left
