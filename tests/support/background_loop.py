"""An event loop in a thread of its own, for property tests: hypothesis calls plain functions.

Guarantees: what `enter` opens is closed when the block is left; a call that takes longer than its bound fails.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
SECONDS = 20.0
_OPEN_SECONDS = 30.0


class BackgroundLoop:
    """A running loop; get one from `background_loop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._stack = AsyncExitStack()

    def run(self, work: Coroutine[Any, Any, T], seconds: float = SECONDS) -> T:
        """The result; TimeoutError after `seconds`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def enter(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Make and enter a context in the loop."""

        async def entered() -> T:
            return await self._stack.enter_async_context(make())

        return self.run(entered(), _OPEN_SECONDS)

    def close(self) -> None:
        """Leave what was entered."""
        self.run(self._stack.aclose(), _OPEN_SECONDS)


@contextmanager
def background_loop() -> Iterator[BackgroundLoop]:
    """A loop in a thread, until the block is left."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="background-loop")
    thread.start()
    running = BackgroundLoop(loop)
    try:
        yield running
    finally:
        try:
            running.close()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
