"""Tasks that run as long as what they belong to.

Guarantees: one that ends before that is told in the log, with its name and its error. Does not start
it again, except with `kept_running`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress

import structlog

log = structlog.get_logger(__name__)


def background(stack: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
    """Run `work` until `stack` is unwound; it is cancelled then."""
    _until_unwound(stack, work, getattr(work, "__qualname__", "background"))


def kept_running(
    stack: AsyncExitStack,
    work: Callable[[], Coroutine[None, None, None]],
    *,
    pause: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Run `work()` until `stack` is unwound, again after `pause()` whenever it ends before.

    For what revocation depends on: without it nothing would be cut, and nobody would see.
    """
    name = getattr(work, "__qualname__", repr(work))

    async def again() -> None:
        while True:
            try:
                await work()
                log.error("background_task_ended", task=name)
            except Exception:  # whatever it is, it must run on
                log.exception("background_task_ended", task=name)
            await pause()

    _until_unwound(stack, again(), name)


def _until_unwound(stack: AsyncExitStack, work: Coroutine[None, None, None], name: str) -> None:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_ended)

    async def end() -> None:
        if task.done():  # was told
            return
        task.remove_done_callback(_ended)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


def _ended(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    log.error("background_task_ended", task=task.get_name(), exc_info=error)
