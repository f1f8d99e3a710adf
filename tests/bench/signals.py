"""SIGINT and SIGTERM end the bench in order.

Guarantees: what is under way is cancelled, once, and its clean-up is waited for, whatever further signals come.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from signal import SIGINT, SIGTERM, Signals
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Ended(Exception):
    """A signal ended it; everything is cleaned up."""

    def __init__(self, signal: Signals) -> None:
        super().__init__(signal.name)
        self.signal = signal


async def until_signal(work: Coroutine[Any, Any, _Result], begin: Callable[[], None]) -> _Result:
    """What `work` gives. Raises Ended after its clean-up, when a signal came before.

    Arguments:
        begin: called when a signal comes, before anything is cancelled.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    heard: list[Signals] = []

    def hear(signal: Signals) -> None:
        if not heard:  # a second one would cancel the clean-up
            print(f"{signal.name}: ending all servers …", file=sys.stderr, flush=True)
            begin()
            task.cancel()
        heard.append(signal)

    # For good: after this returns, asyncio.run still waits for the thread that measures.
    for signal in (SIGINT, SIGTERM):
        loop.add_signal_handler(signal, hear, signal)
    try:
        return await task
    except (asyncio.CancelledError, Exception) as error:
        # By Ctrl-C the clients get the signal too, and fail before the task is cancelled.
        if heard:
            raise Ended(heard[0]) from error
        raise
