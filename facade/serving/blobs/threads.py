"""Work in a thread that is never left behind by a cancelled waiter."""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import TypeVar

_Result = TypeVar("_Result")


async def run_to_end(
    executor: Executor, job: Callable[[], _Result], undo: Callable[[_Result], None] | None = None
) -> _Result:
    """Run `job` in a thread and return only when it has ended, even when cancelled meanwhile.

    A cancellation is raised afterwards, `undo` having been told the result that nobody gets.
    """
    # Not run_in_executor: what it does for futures in general costs as much as the way there and back.
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    ended = False

    def arrived() -> None:
        nonlocal ended
        ended = True
        if not waiter.done():
            waiter.set_result(None)

    def tell(_: "Future[_Result]") -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(arrived)

    future = executor.submit(job)
    future.add_done_callback(tell)
    cancelled = False
    while not ended:
        try:
            await waiter
        except asyncio.CancelledError:
            cancelled = True
            waiter = loop.create_future()
    if cancelled or future.cancelled():  # the latter when the threads are being stopped
        if undo is not None and not future.cancelled() and future.exception() is None:
            undo(future.result())
        raise asyncio.CancelledError
    return future.result()
