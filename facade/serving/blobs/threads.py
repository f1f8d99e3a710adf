"""Work in a thread that is never left behind by a cancelled waiter."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

_Result = TypeVar("_Result")


async def run_to_end(
    executor: Executor, job: Callable[[], _Result], undo: Callable[[_Result], None] | None = None
) -> _Result:
    """Run `job` in a thread and return only when it has ended, even when cancelled meanwhile.

    A cancellation is raised afterwards, `undo` having been told the result that nobody gets.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, job)
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    if not cancelled:
        return future.result()
    if future.exception() is None and undo is not None:
        undo(future.result())
    raise asyncio.CancelledError
