"""From upstream chunks of any size to few, large pieces of work in a thread.

Guarantees: while one buffer is hashed and written in a thread, the other fills on the loop; never
more than one piece of work at a time, so order is kept and memory is two buffers; the first bytes
and a trickle wait milliseconds, not for a full buffer. Pieces end on block boundaries once a
full buffer was had. Does not know what the work is.
"""

import asyncio
from concurrent.futures import Executor
from typing import Protocol

from facade.errors import Unavailable
from facade.serving.blobs.port import BLOCK_BYTES

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


class Gatherer:
    """Gathers and hands over. One per transfer, loop only.

    Arguments:
        sink: does the work.
        executor: threads for it.
    """

    def __init__(self, sink: Sink, executor: Executor) -> None:
        self._sink = sink
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(BATCH_BYTES))
        self._spare: memoryview | None = None
        self._start = 0
        self._fill = 0
        self._job: asyncio.Future[Unavailable | None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._delay = FIRST_DELAY_SECONDS
        self._error: BaseException | None = None

    @property
    def end(self) -> int:
        """Offset behind the last byte added."""
        return self._start + self._fill

    def begin(self, offset: int) -> None:
        """Go on at `offset`. Only when discarded and settled."""
        self._start = offset

    def discard(self) -> None:
        """Forget what was gathered and not yet handed over."""
        self._cancel_timer()
        self._fill = 0

    async def add(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes. Raises what `work` raised."""
        data = memoryview(chunk)
        while data:
            room = self._limit() - self._fill
            part = data[:room]
            self._buffer[self._fill : self._fill + len(part)] = part
            self._fill += len(part)
            data = data[room:]
            if len(part) == room:
                await self._flush()
        if self._fill and self._timer is None:
            self._timer = self._loop.call_later(self._delay, self._time_up)

    async def drain(self) -> None:
        """Return when all that was added is done. Raises what `work` raised."""
        while self._fill:
            await self._flush()
        await self.settle()
        self._raise_error()

    async def settle(self) -> None:
        """Return when no work is under way, even if cancelled meanwhile (raised afterwards)."""
        cancelled = False
        while self._job is not None:
            try:
                await asyncio.wait([self._job])
                await asyncio.sleep(0)  # its callback runs after ours was woken
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    def _limit(self) -> int:
        return BATCH_BYTES - self._start % BLOCK_BYTES

    async def _flush(self) -> None:
        while self._job is not None:
            await asyncio.wait([self._job])
            await asyncio.sleep(0)
        self._raise_error()
        await self._sink.wait_room(self._fill)
        if self._fill:  # else the timer handed it over meanwhile
            self._hand_over()

    def _hand_over(self) -> None:
        self._cancel_timer()
        self._delay = LATER_DELAY_SECONDS
        full, count = self._buffer, self._fill
        self._buffer = self._spare or memoryview(bytearray(BATCH_BYTES))
        self._spare = None
        self._start += count
        self._fill = 0
        self._job = self._loop.run_in_executor(self._executor, self._sink.work, full[:count])
        self._job.add_done_callback(lambda job: self._done(job, full, count))

    def _done(
        self, job: "asyncio.Future[Unavailable | None]", full: memoryview, count: int
    ) -> None:
        self._job = None
        self._spare = full
        if job.cancelled():
            self._error = Unavailable("The worker threads were stopped.")
        elif (error := job.exception()) is not None:
            self._error = error
        else:
            self._sink.landed(full[:count], job.result())

    def _time_up(self) -> None:
        self._timer = None
        if not self._fill or self._error is not None:
            return
        if self._job is None and self._sink.has_room(self._fill):
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
