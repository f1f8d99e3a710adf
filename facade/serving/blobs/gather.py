"""From upstream chunks of any size to few, large pieces of work in a thread.

Guarantees: while one batch is hashed and written in a thread, the next fills on the loop; never
more than one piece of work at a time, so order is kept; the first bytes and a trickle wait
milliseconds, not for a full batch. Batches end on block boundaries once a full one was had.
What was worked on last stays in memory for readers that keep up; a batch is filled again
only when nobody reads it, so memory is three batches and one for each slow reader. Does not
know what the work is.
"""

import asyncio
import contextlib
from concurrent.futures import Executor, Future
from typing import Protocol

from facade.errors import Unavailable
from facade.serving.blobs.port import BLOCK_BYTES
from facade.serving.blobs.pulse import Pulse

BATCH_BYTES = 2 * BLOCK_BYTES
FIRST_DELAY_SECONDS = 0.002
"""How long the very first bytes wait for company: time to first byte."""
LATER_DELAY_SECONDS = 0.05
"""How long later ones do: a thread per 64 KiB would cost more CPU than the hash."""


class Sink(Protocol):
    """What becomes of the pieces."""

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


class Batch:
    """Consecutive bytes of the blob, from offset `start` on."""

    __slots__ = ("_buffer", "count", "readers", "start")

    def __init__(self, size: int) -> None:
        self._buffer = memoryview(bytearray(size))
        self.start = 0
        self.count = 0
        self.readers = 0
        """How many hold a view of it just now: their bytes must stay."""

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.start + self.count

    @property
    def bytes(self) -> memoryview:
        """All of it."""
        return self._buffer[: self.count]

    def view(self, start: int, stop: int) -> memoryview:
        """Bytes [start, stop) of the blob, which it must hold."""
        return self._buffer[start - self.start : stop - self.start]

    def take(self, data: memoryview) -> None:
        """Append `data`, for which there must be room."""
        end = self.count + len(data)
        self._buffer[self.count : end] = data
        self.count = end

    def begin(self, start: int) -> None:
        """Forget everything, and go on at `start`."""
        self.start, self.count = start, 0


class Gatherer:
    """Gathers and hands over. One per transfer, loop only.

    Arguments:
        sink: does the work.
        executor: threads for it.
        size: bytes that there will be at most: a small blob needs no large batch.
    """

    def __init__(self, sink: Sink, executor: Executor, size: int = BATCH_BYTES) -> None:
        self._sink = sink
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._capacity = max(1, min(size, BATCH_BYTES))
        self._filling = Batch(self._capacity)
        self._worked: list[Batch] = []
        """Done, oldest first, and not yet filled again."""
        self._working = False
        self._rested = Pulse()
        self._timer: asyncio.TimerHandle | None = None
        self._delay = FIRST_DELAY_SECONDS
        self._error: BaseException | None = None

    @property
    def end(self) -> int:
        """Offset behind the last byte added."""
        return self._filling.end

    def recent(self, offset: int) -> Batch | None:
        """A batch in memory that was worked on and has the byte at `offset`, if there is one.

        Count yourself among its `readers` while you hold a view of it.
        """
        for batch in reversed(self._worked):
            if batch.start <= offset < batch.end:
                return batch
        return None

    def begin(self, offset: int) -> None:
        """Go on at `offset`. Only when discarded and settled."""
        self._worked.clear()
        self._filling.begin(offset)

    def discard(self) -> None:
        """Forget what was gathered and not yet handed over."""
        self._cancel_timer()
        self._filling.begin(self._filling.start)

    async def add(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes. Raises what `work` raised."""
        data = memoryview(chunk)
        while data:
            room = self._limit() - self._filling.count
            part = data[:room]
            self._filling.take(part)
            data = data[room:]
            if len(part) == room:
                await self._flush()
        if self._filling.count and self._timer is None:
            self._timer = self._loop.call_later(self._delay, self._time_up)

    async def drain(self) -> None:
        """Return when all that was added is done. Raises what `work` raised."""
        while self._filling.count:
            await self._flush()
        await self.settle()
        self._raise_error()

    async def settle(self) -> None:
        """Return when no work is under way, even if cancelled meanwhile (raised afterwards)."""
        cancelled = False
        while self._working:
            try:
                await self._rested.wait()
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    def _limit(self) -> int:
        return self._capacity - self._filling.start % min(BLOCK_BYTES, self._capacity)

    async def _flush(self) -> None:
        while self._working:
            await self._rested.wait()
        self._raise_error()
        await self._sink.wait_room(self._filling.count)
        if self._filling.count:  # else the timer handed it over meanwhile
            self._hand_over()

    def _hand_over(self) -> None:
        self._cancel_timer()
        self._delay = LATER_DELAY_SECONDS
        full = self._filling
        self._filling = self._unread() or Batch(self._capacity)
        self._filling.begin(full.end)
        # Not run_in_executor: what it does for futures in general costs more than all of this.
        job = self._executor.submit(self._sink.work, full.bytes)
        self._working = True
        job.add_done_callback(lambda job: self._ended(job, full))

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
        self._working = False
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
        if not self._working and self._sink.has_room(self._filling.count):
            self._hand_over()
        else:
            self._timer = self._loop.call_later(self._delay, self._time_up)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
