"""Single flight: for one key, one upstream transfer in this process, and all who ask read along.

Guarantees: a request that comes while the same content is under way joins it; one that comes
after a mismatch is told so for a while without another fetch; a descriptor with a wrong size
spoils only requests with that size. What another process has under way is followed, not fetched
(`claim`). Does not know what is in the store.
"""

import asyncio
from collections import OrderedDict
from concurrent.futures import Executor

import structlog

from facade.clock import Clock
from facade.errors import Integrity
from facade.serving.blobs.claim import Stored
from facade.serving.blobs.limits import Published, TransferLimits, TransferPorts
from facade.serving.blobs.observer import TransferObserver
from facade.serving.blobs.port import BlobKey, BlobSource, BlobStore, Ingest, Possession
from facade.serving.blobs.sharing import Tails
from facade.serving.blobs.streams import TransferStream
from facade.serving.blobs.transfer import Transfer

log = structlog.get_logger(__name__)

MAX_SPOILED = 10_000
"""How many failed verdicts are remembered."""


class Flights:
    """All transfers of this process.

    Arguments:
        store, tails: where they are kept, and those of other processes found.
        possession: told what another process proved.
        clock: for pauses and backoff.
        executor: threads for hashing and writing.
        observer: told of transfers and failed verdicts.
        published: awaited when an object was published, before anybody can miss the transfer.
        limits: see there.
    """

    def __init__(
        self,
        *,
        store: BlobStore,
        tails: Tails | None,
        possession: Possession,
        clock: Clock,
        executor: Executor,
        observer: TransferObserver,
        published: Published,
        limits: TransferLimits | None = None,
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._limits = limits or TransferLimits()
        self._ports = TransferPorts(
            store, possession, tails, clock, executor, observer, self._limits, published
        )
        self._running: dict[tuple[BlobKey, int], Transfer] = {}
        self._tasks: dict[asyncio.Task[None], Transfer] = {}
        self._spoiled: OrderedDict[tuple[BlobKey, int], float] = OrderedDict()

    def __len__(self) -> int:
        """How many transfers are under way."""
        return len(self._running)

    def is_running(self, key: BlobKey, size: int) -> bool:
        """Whether `stream` would join."""
        transfer = self._running.get((key, size))
        return transfer is not None and transfer.joinable

    def is_there(self, key: BlobKey, size: int) -> bool:
        """Whether a transfer of it is under way or about to end, joined or not."""
        return (key, size) in self._running

    async def stream(
        self,
        key: BlobKey,
        size: int,
        source: BlobSource,
        stored: Stored | None = None,
        begun: Ingest | None = None,
    ) -> TransferStream:
        """Join the transfer of `key`, or start it from `source`.

        Arguments:
            stored: asked once more for the object before anything is fetched.
            begun: an ingest for it that holds nothing yet; owned.

        What goes wrong with the transfer is raised by the stream. Raises Integrity when the
        same content did not match a short while ago.
        """
        try:
            while True:
                self._check_spoiled(key, size)
                transfer = self._running.get((key, size))
                if transfer is None or (not transfer.ending and not transfer.joinable):
                    # The latter has no room to keep its beginning; it goes on for its own readers.
                    transfer = self._start(key, size, source, stored, begun)
                    begun = None
                    return await self._placed(TransferStream(transfer, "miss"))
                if transfer.joinable:
                    return TransferStream(transfer, "join")
                await transfer.over.wait()
        finally:
            if begun is not None:
                await begun.close(keep=False)

    async def close(self) -> None:
        """Stop all transfers, keeping what came, and wait until they have ended."""
        tasks = list(self._tasks)
        for transfer in self._tasks.values():
            transfer.stop()
        if tasks:
            await asyncio.wait(tasks)

    async def _placed(self, stream: TransferStream) -> TransferStream:
        """It, when its outcome is known."""
        try:
            await stream.placed()
        except BaseException:
            await stream.aclose()
            raise
        return stream

    def _start(
        self,
        key: BlobKey,
        size: int,
        source: BlobSource,
        stored: Stored | None,
        begun: Ingest | None,
    ) -> Transfer:
        transfer = Transfer(key, size, source, self._ports, self._ended, stored, begun)
        self._running[key, size] = transfer
        task = transfer.start()
        self._tasks[task] = transfer
        task.add_done_callback(self._tasks.pop)
        return transfer

    def _ended(self, transfer: Transfer) -> None:
        key, size = transfer.key, transfer.size
        if self._running.get((key, size)) is transfer:
            del self._running[key, size]
        if isinstance(transfer.error, Integrity):
            self._spoiled[key, size] = self._clock.monotonic() + self._limits.integrity_seconds
            if len(self._spoiled) > MAX_SPOILED:
                self._spoiled.popitem(last=False)
            detail = transfer.error.message
            host, repository, digest = str(key.host), str(key.repository), str(key.digest)
            log.error(
                "integrity_failed", host=host, repository=repository, digest=digest, detail=detail
            )
            self._observer.integrity_failed(host, repository, digest, detail)

    def _check_spoiled(self, key: BlobKey, size: int) -> None:
        until = self._spoiled.get((key, size))
        if until is None:
            return
        left = until - self._clock.monotonic()
        if left <= 0:
            del self._spoiled[key, size]
            return
        error = Integrity(
            "What the registry sent for this digest did not match it a moment ago; "
            "it will be tried again soon."
        )
        error.retry_after = left
        raise error
