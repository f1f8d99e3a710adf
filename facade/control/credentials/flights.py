"""One exchange at a time per key, and failures remembered for seconds.

Guarantees: while an exchange for a key runs, everybody who asks for that key waits for this one; it
is a task of its own, so the cancellation of a waiter, the first one included, reaches neither it
nor the others; a failure is told again for FAILURE_SECONDS without another attempt, so that a
broken token service is not stormed and a repaired one is noticed at once.
"""

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from facade.clock import Clock
from facade.control.credentials.tokens import CachedToken, TokenKey
from facade.errors import FacadeError

FAILURE_SECONDS = 3.0
MAX_FAILURE_SECONDS = 15.0
"""A token service that names a longer Retry-After is asked again after this."""
_MAX_FAILURES = 1000

Exchange = Callable[[], Coroutine[Any, Any, CachedToken]]


class Flights:
    """The running exchanges of a process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[TokenKey, asyncio.Task[CachedToken]] = {}
        self._failures: OrderedDict[TokenKey, tuple[float, FacadeError]] = OrderedDict()

    async def join(self, key: TokenKey, exchange: Exchange) -> CachedToken:
        """The result of the running exchange for `key`, or of a new one.

        Raises what the exchange raises, or raised within the last seconds.
        """
        failure = self.failure(key)
        if failure is not None and key not in self._tasks:
            raise failure
        return await asyncio.shield(self._task(key, exchange))

    def start(self, key: TokenKey, exchange: Exchange) -> None:
        """Run an exchange that nobody waits for, unless one runs or has just failed."""
        if self.failure(key) is None:
            self._task(key, exchange)

    def failure(self, key: TokenKey) -> FacadeError | None:
        """Why the last exchange for `key` failed, while that is remembered."""
        until, error = self._failures.get(key, (0.0, None))
        if error is None or self._clock.monotonic() >= until:
            return None
        return error.with_traceback(None)

    def forget(self, connection_id: str) -> None:
        """Forget failures of a connection; the next request tries at once."""
        for key in [key for key in self._failures if key.connection_id == connection_id]:
            del self._failures[key]

    async def close(self) -> None:
        """Stop the running exchanges."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _task(self, key: TokenKey, exchange: Exchange) -> asyncio.Task[CachedToken]:
        task = self._tasks.get(key)
        if task is None:
            # The exchange serves all waiters, so the first one's request id does not belong into its
            # log lines; the trace of the first (if there is one) is where it can be seen.
            context = contextvars.copy_context()
            context.run(structlog.contextvars.clear_contextvars)
            task = asyncio.create_task(exchange(), name=f"exchange {key.kind}", context=context)
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        return task

    def _done(self, key: TokenKey, task: asyncio.Task[CachedToken]) -> None:
        del self._tasks[key]
        if task.cancelled():
            return
        error = task.exception()  # also marks it as seen: a refresh has no waiters
        if isinstance(error, FacadeError):
            seconds = min(max(FAILURE_SECONDS, error.retry_after or 0.0), MAX_FAILURE_SECONDS)
            self._failures[key] = (self._clock.monotonic() + seconds, error)
            self._failures.move_to_end(key)
            while len(self._failures) > _MAX_FAILURES:
                self._failures.popitem(last=False)
        else:
            self._failures.pop(key, None)
