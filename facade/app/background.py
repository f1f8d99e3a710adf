"""Tasks that run as long as what they belong to."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress


def background(stack: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
    """Run `work` until `stack` is unwound; it is cancelled then."""
    task = asyncio.ensure_future(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
