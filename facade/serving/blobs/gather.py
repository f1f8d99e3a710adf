"""From upstream chunks of any size to few, large pieces of work in a thread.

Guarantees: while one batch is hashed and written in a thread, the next fills on the loop; never
more than one piece of work at a time, so order is kept; a trickle is worked on within milliseconds.
Batches end on block boundaries once a full one was had. What came is readable at once: while it is
gathered, while it is worked on, and after that as long as nothing newer was worked on. Bytes that
somebody reads stay; a batch is filled again only when nobody does, so memory is three batches and
one for each slow reader. Does not know what the work is.
"""

import asyncio
import contextlib
from concurrent.futures import Executor, Future
from typing import Protocol

from facade.errors import Unavailable
from facade.serving.blobs.batch import BATCH_BYTES, Batch, Buffers
from facade.serving.blobs.port import BLOCK_BYTES
from facade.serving.blobs.pulse import Pulse

_NOTHING = memoryview(b"")
"""Memory is taken when there is something to put into it: none behind the last byte, nor before the first."""
TRICKLE_SECONDS = 0.05
"""How long bytes wait for company: a thread per 64 KiB would cost more CPU than the hash."""


class Sink(Protocol):
    """What becomes of the pieces."""

    def came(self) -> None:
        """Called on the loop when more can be read (`Gatherer.recent`)."""
        ...

    def work(self, data: memoryview) -> Unavailable | None:
        """Called in a thread, in order. What it returns is handed to `landed`."""
        ...

    def landed(self, data: memoryview, trouble: Unavailable | None) -> None:
        """Called on the loop after `work`; `data` is valid during the call only."""
        ...

    def has_room(self, count: int) -> bool:
        """Whether `count` bytes may be worked on now."""
        ...

    async def wait_room(self, count: int) -> None:
        """Return when they may."""
        ...


class Gatherer:
    """Gathers and hands over. One per transfer, loop only.

    Arguments:
        sink: does the work.
        executor: threads for it.
        size: bytes that there will be at most: a small blob needs no large batch.
        buffers: for large ones.
    """

    def __init__(
        self,
        sink: Sink,
        executor: Executor,
        size: int = BATCH_BYTES,
        buffers: Buffers | None = None,
    ) -> None:
        self._sink = sink
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._capacity = max(1, min(size, BATCH_BYTES))
        self._buffers = buffers or Buffers(0)
        self._filling = Batch(_NOTHING)
        self._working: Batch | None = None
        self._worked: list[Batch] = []
        """Done, oldest first, and not yet filled again."""
        self._rested = Pulse()
        self._timer: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None

    @property
    def end(self) -> int:
        """Offset behind the last byte added."""
        return self._filling.end

    def recent(self, offset: int) -> Batch | None:
        """A batch in memory that has the byte at `offset`, if there is one.

        Count yourself among its `readers` while you hold a view of it.
        """
        for batch in (self._filling, self._working, *reversed(self._worked)):
            if batch is not None and batch.start <= offset < batch.end:
                return batch
        return None

    def begin(self, offset: int) -> None:
        """Go on at `offset`. Only when discarded and settled."""
        self._worked.clear()
        self._refill(offset)

    def discard(self) -> None:
        """Forget what was gathered and not yet handed over."""
        self._cancel_timer()
        self._refill(self._filling.start)

    def space(self) -> memoryview:
        """Where the next bytes go: fill some of it, and say so to `filled` before anything else.

        Empty while they cannot be taken: see `make_space`.
        """
        if not self._filling.buffer:
            self._filling.buffer = self._memory()
        return self._filling.space(self._limit())

    def filled(self, count: int) -> None:
        """So many bytes were put at the start of `space`."""
        self._filling.count += count
        self._sink.came()
        if self._filling.count == self._limit():
            if self._may_hand_over():
                self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(TRICKLE_SECONDS, self._time_up)

    async def make_space(self) -> None:
        """Return when there is `space`. Raises what `work` raised."""
        while self._filling.count == self._limit():
            await self._flush()

    async def add(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes. Raises what `work` raised."""
        data = memoryview(chunk)
        while data:
            space = self.space()
            part = data[: len(space)]
            space[: len(part)] = part
            data = data[len(part) :]
            self.filled(len(part))
            await self.make_space()

    async def drain(self) -> None:
        """Return when all that was added is done. Raises what `work` raised."""
        while self._filling.count:
            await self._flush()
        await self.settle()
        self._raise_error()

    async def settle(self) -> None:
        """Return when no work is under way, even if cancelled meanwhile (raised afterwards)."""
        cancelled = False
        while self._working is not None:
            try:
                await self._rested.wait()
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def close(self, *, keep: bool) -> None:
        """Return when no work is under way and none will be; `keep` = what came is worked on first.

        Raises what `work` raised.
        """
        try:
            if keep:
                await self.drain()
        finally:
            self.discard()
            await self.settle()

    def release(self) -> None:
        """Nobody reads from here any more, but what is read just now stays. Only when closed."""
        for batch in (self._filling, *self._worked):
            if not batch.readers:
                self._buffers.give(batch.buffer)
        self._worked.clear()
        self._filling = Batch(_NOTHING)

    def _memory(self) -> memoryview:
        if self._capacity == BATCH_BYTES:
            return self._buffers.take()
        return memoryview(bytearray(self._capacity))

    def _limit(self) -> int:
        return self._capacity - self._filling.start % min(BLOCK_BYTES, self._capacity)

    async def _flush(self) -> None:
        while self._working is not None:
            await self._rested.wait()
        self._raise_error()
        await self._sink.wait_room(self._filling.count)
        if self._filling.count:  # else it was handed over meanwhile
            self._hand_over()

    def _may_hand_over(self) -> bool:
        idle = self._working is None and self._error is None
        return idle and self._sink.has_room(self._filling.count)

    def _hand_over(self) -> None:
        self._cancel_timer()
        full = self._working = self._filling
        self._filling = self._unread() or Batch(_NOTHING)
        self._filling.begin(full.end)
        # Not run_in_executor: what it does for futures in general costs more than all of this.
        job = self._executor.submit(self._sink.work, full.bytes)
        job.add_done_callback(lambda job: self._ended(job, full))

    def _refill(self, start: int) -> None:
        """Go on at `start` with nothing; what is read of the former bytes stays."""
        if self._filling.readers:
            self._filling = Batch(_NOTHING)
        self._filling.begin(start)

    def _unread(self) -> Batch | None:
        """An older batch to fill again: the latest stays for readers, and so does what one reads."""
        for batch in self._worked[:-1]:
            self._worked.remove(batch)
            if not batch.readers:
                return batch
        return None

    def _ended(self, job: "Future[Unavailable | None]", full: Batch) -> None:
        """In the thread: tell the loop, unless that has ended meanwhile."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._done, job, full)

    def _done(self, job: "Future[Unavailable | None]", full: Batch) -> None:
        self._working = None
        if job.cancelled():
            self._error = Unavailable("The worker threads were stopped.")
        elif (error := job.exception()) is not None:
            self._error = error
        else:
            self._worked.append(full)
            self._sink.landed(full.bytes, job.result())
        self._rested.fire()

    def _time_up(self) -> None:
        self._timer = None
        if not self._filling.count or self._error is not None:
            return
        if self._may_hand_over():
            self._hand_over()
        else:
            self._timer = self._loop.call_later(TRICKLE_SECONDS, self._time_up)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
