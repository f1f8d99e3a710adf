"""What one reader gets: of an object in the store, or of a transfer that is under way.

Guarantees: views are in order, gapless and at most a block long; of a transfer, the last
`TransferLimits.held` bytes of every answer, a Range's too, wait for the verdict (pull-path.md,
"The end waits for the verdict"). A stream that keeps up is given what is still in memory; one that
lags reads the file into one buffer of its own, every block checked.
"""

from collections.abc import AsyncIterator, Awaitable, Callable

from facade.errors import FacadeError, Integrity, Unavailable
from facade.reasons import Reason
from facade.serving.blobs.batch import Batch
from facade.serving.blobs.port import BLOCK_BYTES, BlobReader, Outcome
from facade.serving.blobs.sharing import Gone
from facade.serving.blobs.transfer import Transfer

Spoiled = Callable[[Integrity], Awaitable[None]]


class StoredStream:
    """Implements `BlobStream` on a published object.

    Arguments:
        reader: open; closed with the stream.
        spoiled: awaited when a block does not match, before Integrity is raised.
        first: its first bytes, which `reader` gave last: a view of it that is still valid.
    """

    outcome: Outcome = "hit"

    def __init__(
        self, reader: BlobReader, spoiled: Spoiled, first: memoryview | None = None
    ) -> None:
        self._reader = reader
        self._spoiled = spoiled
        self._first = first
        self.size = reader.size

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[memoryview]:
        read = self._reader.read
        end = self.size if stop is None else stop
        position = start
        first, self._first = self._first, None
        if first is not None and start == 0 and end == self.size:
            position = len(first)
            yield first
        while position < end:
            try:
                view = await read(position, end - position)
            except Integrity as error:
                await self._spoiled(error)
                raise
            position += len(view)
            yield view

    async def aclose(self) -> None:
        self._reader.close()


class TransferStream:
    """Implements `BlobStream` on a transfer.

    Arguments:
        transfer: what to read; this stream attaches to it at once.
        outcome: "join", or "miss" when it was begun for this stream, which `placed` may correct.
    """

    def __init__(self, transfer: Transfer, outcome: Outcome) -> None:
        self.outcome = outcome
        self.size = transfer.size
        self.position = 0
        self._start = 0
        self._transfer = transfer
        self._error: FacadeError | None = None
        self._generation = transfer.generation
        self._sent = False
        transfer.attach(self)

    def cut(self, error: FacadeError) -> None:
        """Make it end with `error` (see `transfer.Reader`)."""
        self._error = error
        self._transfer.detach(self)

    async def placed(self) -> None:
        """Return when it is known where the bytes come from: `outcome` says so from then on."""
        if self.outcome == "miss":
            await self._transfer.placed.wait()
            self.outcome = self._transfer.outcome

    async def finished(self) -> None:
        """Return when the transfer is over: verified, and published if the store could.

        Raises what readers of it get.
        """
        await self._transfer.over.wait()
        if self._transfer.error is not None:
            raise self._transfer.error.with_traceback(None)

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[memoryview]:
        end = self.size if stop is None else stop
        free = end - self._transfer.limits.held(end - start)
        buffer: memoryview | None = None
        self._start = start
        self._move(start)
        while True:
            self._is_void()
            settled = self._transfer.settled
            limit = end if settled else min(free, self._transfer.received)
            if self.position < limit:
                batch = self._transfer.recent(self.position)
                if batch is not None:
                    batch.readers += 1
                    try:
                        yield self._take(batch, limit)
                    finally:
                        batch.readers -= 1
                    continue
                if buffer is None:
                    buffer = memoryview(bytearray(min(BLOCK_BYTES, end - start)))
                view = await self._read(buffer, limit)
                if view is not None:
                    yield view
            elif settled:
                return
            elif self.position < free:
                await self._transfer.progress.wait()
            elif self._transfer.lockstep is None:
                await self._transfer.changed.wait()
            else:
                held = await self._take_aside(end)
                if held is not None:
                    for at in range(0, len(held), BLOCK_BYTES):
                        yield held[at : at + BLOCK_BYTES]
                    return

    async def aclose(self) -> None:
        self._transfer.detach(self)

    def _is_void(self) -> bool:
        """Whether what was prepared so far became void, nothing of it having been sent: then the
        stream stands at its start again.

        Raises what ends the stream.
        """
        error = self._error or self._transfer.error
        if error is not None:
            raise error.with_traceback(None)
        if self._generation == self._transfer.generation:
            return False
        if self._sent:
            raise Unavailable(
                "What the registry sent did not match and is fetched again: ask again.",
                reason=Reason.INTEGRITY,
                retry_after=1.0,
            )
        self._generation = self._transfer.generation
        self._move(self._start)
        return True

    def _move(self, position: int) -> None:
        self.position = position
        self._transfer.reader_moved()

    def _take(self, batch: Batch, limit: int) -> memoryview:
        """The next view, out of memory: hashed and written a moment ago, and nobody's but ours."""
        stop = min(limit, batch.end, self.position + BLOCK_BYTES)
        view = batch.view(self.position, stop)
        self._sent = True
        self._move(stop)
        return view

    async def _read(self, buffer: memoryview, limit: int) -> memoryview | None:
        """The next view, or None when the bytes became void while they were read."""
        count = min(limit - self.position, BLOCK_BYTES - self.position % BLOCK_BYTES)
        try:
            count = await self._transfer.read(buffer[:count], self.position)
        except Gone:
            await self._transfer.changed.wait()  # it sees now how that ended
            return None
        except (Integrity, Unavailable):
            if self._is_void():
                return None
            raise
        if self._is_void():
            return None
        self._sent = True
        self._move(self.position + count)
        return buffer[:count]

    async def _take_aside(self, end: int) -> memoryview | None:
        """In lockstep: copy the held end out of the window, so that the window can move on.

        Returns it after the verdict; None when it became void, or more is yet to come.
        Raises Unavailable when it is more than can be held in memory.
        """
        transfer, begin = self._transfer, self.position
        if transfer.lockstep is not None and end - begin > transfer.lockstep.keep:
            raise Unavailable(
                "The facade has no room to keep this, so that it cannot be verified before it is sent.",
                reason=Reason.OVERLOADED,
                retry_after=10.0,
            )
        if transfer.received < end:
            await transfer.progress.wait()
            return None
        held = memoryview(bytearray(end - begin))
        done = 0
        while done < len(held):
            done += await transfer.read(held[done:], begin + done)
            if self._is_void():
                return None
        self._move(self.size)  # nothing more is needed from there
        while not transfer.settled:
            await transfer.changed.wait()
            if self._is_void():
                return None
        return held
