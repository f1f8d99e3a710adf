"""A coroutine begun in the very step that asks for it; a task is made only once it waits.

Guarantees: what never waits has run to its end when `begin` returns, and cost no task and no turn of the
loop; what waits goes on as any task does, and is cancelled as one. Until it waits,
`asyncio.current_task()` is not its own: nothing that needs that (`asyncio.timeout`) belongs before.
(Python 3.12 has this as `asyncio.eager_task_factory`.)
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any


def begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run `work` until it waits; the task of its rest, None = it has ended.

    Raises what `work` raises without having waited.
    """
    context = copy_context()  # what it binds for its log lines is its own
    try:
        awaited = context.run(work.send, None)
    except StopIteration:
        return None
    loop = asyncio.get_running_loop()
    return loop.create_task(_Rest(work, awaited), context=context)


class _Rest(Coroutine[Any, Any, None]):
    """What is left of a coroutine that has begun and waits.

    No generator: a task that is cancelled before its first turn never enters one, and the coroutine
    within would not be told.

    Arguments:
        awaited: what `work` waits for: the first thing that its task is to wait for.
    """

    __slots__ = ("_awaited", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], awaited: Any) -> None:
        self._work = work
        self._awaited: list[Any] = [awaited]

    def send(self, value: Any) -> Any:
        return self._awaited.pop() if self._awaited else self._work.send(value)

    def throw(self, *error: Any) -> Any:
        self._awaited.clear()
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, None, None]:
        raise TypeError("Only its task drives this.")
