"""Work in a thread that is never left behind by a cancelled waiter.

Guarantees: whoever waits goes on in the turn of the loop in which the thread's end becomes known.
"""

import asyncio
import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from contextvars import Context
from typing import Any, Generic, TypeVar

_Result = TypeVar("_Result")


async def run_to_end(
    executor: Executor, job: Callable[[], _Result], undo: Callable[[_Result], None] | None = None
) -> _Result:
    """Run `job` in a thread and return only when it has ended, even when cancelled meanwhile.

    A cancellation is raised afterwards, `undo` having been told the result that nobody gets.
    """
    future = executor.submit(job)
    try:
        await _End(future)
    except asyncio.CancelledError:
        if undo is not None and not future.cancelled() and future.exception() is None:
            undo(future.result())
        raise
    if future.cancelled():  # the threads are being stopped
        raise asyncio.CancelledError
    return future.result()


class _End(Generic[_Result]):
    """Awaited by one task: the end of a thread's work, which cannot be called off.

    Not run_in_executor: what it does for futures in general costs as much as the way there and back; and
    an asyncio future wakes its task a turn of the loop later. So this is one in asyncio's own terms
    (`asyncio.isfuture`), for the one task that waits for it.
    """

    _asyncio_future_blocking = False

    def __init__(self, future: "Future[_Result]") -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self._wake: Callable[[Any], object] | None = None
        self._context: Context | None = None
        future.add_done_callback(self._tell)

    def __await__(self) -> Generator[Any, None, None]:
        cancelled: asyncio.CancelledError | None = None
        while not self._ended:
            self._asyncio_future_blocking = True
            try:
                yield self
            except asyncio.CancelledError as error:  # perhaps before its task waits (`eager`)
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The task's."""
        return self._loop

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context) -> None:
        """The task waits from now on."""
        self._wake, self._context = wake, context
        if self._ended:
            self._loop.call_soon(self._arrived)

    def cancel(self, msg: object = None) -> bool:
        """No: the task is told when this has ended."""
        return False

    def result(self) -> None:
        """Nothing: it only tells the end."""

    def _tell(self, _: "Future[_Result]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            self._loop.call_soon_threadsafe(self._arrived)

    def _arrived(self) -> None:
        self._ended = True
        if self._wake is not None and self._context is not None:
            self._context.run(self._wake, self)
