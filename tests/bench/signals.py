"""SIGINT and SIGTERM end the bench in order.

Guarantees: what is under way is cancelled, once, and its clean-up is waited for, whatever further signals come.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from signal import SIG_IGN, SIGINT, SIGTERM, Signals
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Ended(Exception):
    """A signal ended it; everything is cleaned up."""

    def __init__(self, number: Signals) -> None:
        super().__init__(number.name)
        self.signal = number


async def until_signal(work: Coroutine[Any, Any, _Result], begin: Callable[[], None]) -> _Result:
    """What `work` gives. Raises Ended after its clean-up, when a signal came before.

    Arguments:
        begin: called when a signal comes, before anything is cancelled.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    heard: list[Signals] = []

    def hear(number: Signals) -> None:
        heard.append(number)
        for each in (SIGINT, SIGTERM):
            # For good, not as long as the loop: a second one would cancel the clean-up, or end us behind it,
            # when the loop has given its handlers back and the last word is not said yet.
            loop.remove_signal_handler(each)
            signal.signal(each, SIG_IGN)
        print(f"{number.name}: ending all servers …", file=sys.stderr, flush=True)
        begin()
        task.cancel()

    for each in (SIGINT, SIGTERM):
        loop.add_signal_handler(each, hear, each)
    try:
        return await task
    except (asyncio.CancelledError, Exception) as error:
        # By Ctrl-C the clients get the signal too, and fail before the task is cancelled.
        if heard:
            raise Ended(heard[0]) from error
        raise
