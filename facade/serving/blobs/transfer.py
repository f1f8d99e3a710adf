"""One upstream transfer: received once, verified, kept, and read by any number of streams meanwhile.

Guarantees: it belongs to no request (its own task); it is `settled` only when length and digest
matched; a broken transfer resumes where it stopped, and a mismatch after a resume is fetched once
from zero before it counts; what did not match is never published. Memory is a constant. When the
store cannot take it, it goes on through a bounded window in memory, in lockstep with its readers.
Does not decide who may read: `flight` and what is above do.
"""

import asyncio
from collections.abc import Callable

import structlog

from facade.errors import FacadeError, Integrity, Unavailable, Upstream
from facade.reasons import Reason
from facade.serving.blobs.audience import Audience, Reader
from facade.serving.blobs.batch import Batch
from facade.serving.blobs.claim import Claim, Stored
from facade.serving.blobs.gather import Gatherer
from facade.serving.blobs.intake import Intake
from facade.serving.blobs.limits import TransferPorts
from facade.serving.blobs.lockstep import Lockstep
from facade.serving.blobs.port import BlobKey, BlobSource, Ingest
from facade.serving.blobs.progress import Progress
from facade.serving.blobs.receive import Receiver
from facade.serving.blobs.sharing import Kept
from facade.serving.blobs.threads import run_to_end
from facade.serving.blobs.verify import StreamVerifier

log = structlog.get_logger(__name__)


class Transfer(Progress):
    """One key's bytes on their way in. Loop only; `run` is its task.

    Arguments:
        size: how many bytes there must be.
        ended: told once, when it is over: published, or failed and cleaned up.
        stored, begun: see `Claim`; the latter is owned.
    """

    def __init__(
        self,
        key: BlobKey,
        size: int,
        source: BlobSource,
        ports: TransferPorts,
        ended: Callable[["Transfer"], None],
        stored: Stored | None = None,
        begun: Ingest | None = None,
    ) -> None:
        super().__init__()
        self.key = key
        self.size = size
        self.limits = ports.limits
        self._ports = ports
        self._ended = ended
        self._source = source
        self._verifier = StreamVerifier(key.digest, size)
        self._intake = Intake(self._verifier, self._settle)
        self._gatherer = Gatherer(self, ports.executor, size, ports.buffers)
        self._claim = Claim(
            key, size, holder=self, verifier=self._verifier, ports=ports, stored=stored, begun=begun
        )
        self._kept: Kept | None = begun
        self._audience = Audience(
            clock=ports.clock,
            grace_seconds=ports.limits.grace_seconds,
            is_needless=self._is_needless,
            deserted=self.stop,
        )
        self._task: asyncio.Task[None] | None = None
        self._entered = self._stopped = False
        if begun is not None and not begun.superseded:
            self.place("miss")  # nobody has to wait for the first step to know

    # For readers (streams).

    def attach(self, reader: Reader) -> None:
        """A stream reads from now on."""
        self._audience.attach(reader)

    def detach(self, reader: Reader) -> None:
        """It left. Calling again does nothing."""
        self._audience.detach(reader)
        self.reader_moved()

    def reader_moved(self) -> None:
        """A reader's position changed."""
        if self.lockstep is not None:
            self.lockstep.moved.fire()

    @property
    def joinable(self) -> bool:
        """Whether a new reader can still have all bytes from here."""
        return not self.ending and (self.lockstep is None or self.lockstep.holds_start)

    def recent(self, offset: int) -> Batch | None:
        """What came a moment ago, if it has the byte at `offset`: see `Gatherer.recent`."""
        return self._gatherer.recent(offset)

    async def read(self, into: memoryview, offset: int) -> int:
        """Copy received bytes from `offset`; returns how many, at least one.

        Raises Integrity when they are not what came, Unavailable when they are gone.
        """
        if self.lockstep is not None and offset >= self.lockstep.begins:
            return self.lockstep.read(into, offset)
        if self._kept is None:
            raise Unavailable("The transfer has ended.", reason=Reason.INTERNAL)
        return await self._kept.read(into, offset)

    # The task.

    def start(self) -> "asyncio.Task[None]":
        """Begin. The task ends when the transfer is over and its last reader left."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._task_done)
        return self._task

    def stop(self) -> None:
        """End it now, once, keeping what came for a later transfer; what is whole is still published."""
        self.ending = True
        if self._task is not None and not self._stopped:
            self._stopped = True
            self._audience.gone.fire()
            # Else it is about to end, or to begin with that: a task that has not begun cannot clean up.
            if self._entered and not self.settled and self.error is None:
                self._task.cancel()

    async def _run(self) -> None:
        self._entered = True
        try:
            if self._stopped:
                raise asyncio.CancelledError
            await self._obtain()
            self._settle()
        except asyncio.CancelledError:
            self._fail(Unavailable("The transfer was stopped.", reason=Reason.INTERNAL))
            raise
        except FacadeError as error:
            self._fail(error)
        except Exception:
            log.exception("transfer_crashed", digest=str(self.key.digest))
            self._fail(Unavailable("The transfer failed.", reason=Reason.INTERNAL))
        finally:
            await self._end()

    async def _obtain(self) -> None:
        """Receive everything and find it right. Raises what the readers are to see."""
        if not await self._begin():
            return
        receiver = Receiver(
            self.key, self.size, self._source, self._gatherer, self._ports, self._intake
        )
        may_restart = True
        while True:
            try:
                await receiver.receive()
                self._verifier.verdict()
            except Integrity as error:
                if not (may_restart and receiver.resumed):
                    raise
                may_restart = False
                log.warning("transfer_restarted", digest=str(self.key.digest), why=error.message)
                await self._restart()
                receiver.restart()
            else:
                return

    async def _begin(self) -> bool:
        """Get a place for the bytes; whether any are to be received. Raises like `_obtain`."""
        claimed = await self._claim.obtain()
        if claimed.complete:
            self.received = self.size
            return False
        self._gatherer.begin(self._verifier.seen)
        self.received = self.landed_bytes = self._verifier.seen
        self._intake.ingest = claimed.ingest
        if claimed.trouble is not None:
            self._stop_caching(claimed.trouble)
        if self.received:  # else nobody has anything to wake up for
            self._fire()
        return True

    async def _restart(self) -> None:
        self._gatherer.discard()
        await self._gatherer.settle()
        self._gatherer.begin(0)
        self._verifier.restart()
        self.starts_over()
        if self.lockstep is not None:
            self.lockstep = Lockstep.of(0, self._audience.readers, self.limits)
        elif self._intake.ingest is not None:
            try:
                await run_to_end(self._ports.executor, self._intake.ingest.restart)
            except Unavailable as error:
                self._stop_caching(error)
        self._fire()

    async def _publish(self) -> None:
        try:
            if await self._intake.publish(self._ports.executor):
                await self._ports.published(self.key, self.size)
        except Unavailable as error:
            log.warning("publish_failed", digest=str(self.key.digest), error=error.message)

    async def _end(self) -> None:
        """Clean up; nothing of ours is in use by a thread when this returns."""
        try:
            await self._gatherer.close(keep=self._stopped and self.lockstep is None)
            # A thread may have published it before a stop was told so.
            if self.settled or self._intake.published:
                await self._publish()
            if self.settled:
                # The object is published: others find it in the store from now on.
                self._is_over()
                while self._audience.readers and not self._stopped:
                    await self._audience.gone.wait()
        finally:
            self._gatherer.release()
            kept, self._kept, self._intake.ingest = self._kept, None, None
            if kept is not None:
                void = (
                    self.settled or isinstance(self.error, Integrity) or self.lockstep is not None
                )
                refusal = self.error if isinstance(self.error, Upstream) else None
                await kept.close(keep=not void, refusal=refusal)
            self._audience.close()
            self._is_over()

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        if not self.over.is_set():  # cancelled before its first step
            self._fail(Unavailable("The transfer was stopped.", reason=Reason.INTERNAL))
            self._is_over()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("transfer_clean_up_failed", digest=str(self.key.digest), error=str(error))

    def _is_over(self) -> None:
        self.ending = True
        if not self.over.is_set():
            self.place("miss")
            self.over.set()
            self._ended(self)

    # What the claim tells.

    def reads_from(self, kept: Kept) -> None:
        self._kept = kept

    def grew(self) -> None:
        if self._kept is not None:
            self.received = self._kept.have
            self.progress.fire()

    # The sink of the gatherer.

    def came(self) -> None:
        if self.lockstep is None:
            self.received = self._gatherer.end
            self.progress.fire()

    def work(self, data: memoryview) -> Unavailable | None:
        return self._intake.work(data)

    def landed(self, data: memoryview, trouble: Unavailable | None) -> None:
        if trouble is not None:
            self._stop_caching(trouble)
        self.landed_bytes += len(data)
        if self.lockstep is not None:
            self.lockstep.append(data)
            self.received = self.landed_bytes
            self.progress.fire()

    def has_room(self, count: int) -> bool:
        return self.lockstep is None or self.lockstep.has_room(count)

    async def wait_room(self, count: int) -> None:
        if self.lockstep is not None:
            await self.lockstep.wait_room(count)

    def _stop_caching(self, error: Unavailable) -> None:
        log.warning("caching_stopped", digest=str(self.key.digest), error=error.message)
        self._intake.ingest = None
        self.received = self.landed_bytes  # who read ahead in memory waits for the window
        self.lockstep = Lockstep.of(self.landed_bytes, self._audience.readers, self.limits)
        self.changed.fire()
        self._audience.look()

    def _is_needless(self) -> bool:
        """Whether nobody would miss it, the cache included."""
        wanted = self.limits.carry_on and self.lockstep is None and not self._claim.following
        return not wanted and not self.settled and self.error is None
