"""Bounds, so that overload is answered: a request first waits for its slot, then is refused.

Guarantees: never more than `limit` holders per key; waiters of a key are served first come, first
served; a slot is given back exactly once, whatever is cancelled when. Keys that nobody holds cost
nothing. Does not share fairly between keys: each key has slots of its own (pull-path.md, "Bounds").
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from facade.clock import Clock
from facade.errors import FacadeError, Unavailable
from facade.reasons import Reason

Key = TypeVar("Key", bound=Hashable)

RETRY_AFTER_SECONDS = 5.0
"""What a refused client is told. It has waited already; podman tries five times."""


class WaitObserver(Protocol):
    """Counts who waits."""

    def waiting(self, change: int) -> None:
        """One more (+1) or less (-1) waits."""
        ...


class NullWaitObserver:
    """Counts nothing."""

    def waiting(self, change: int) -> None:
        """Ignore it."""


class _Queue:
    __slots__ = ("held", "waiters")

    def __init__(self) -> None:
        self.held = 0
        self.waiters: deque[asyncio.Future[None]] = deque()


class Slots(Generic[Key]):
    """At most `limit` holders of each key at once.

    Arguments:
        wait_seconds: how long a request waits for its slot before it is refused.
        refusal: makes the error raised then.
    """

    def __init__(
        self,
        limit: int,
        *,
        wait_seconds: float,
        clock: Clock,
        refusal: Callable[[], FacadeError],
        observer: WaitObserver | None = None,
    ) -> None:
        self._limit = limit
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._refusal = refusal
        self._observer = observer or NullWaitObserver()
        self._queues: dict[Key, _Queue] = {}

    def held(self, key: Key) -> int:
        """How many hold a slot of `key` now."""
        queue = self._queues.get(key)
        return queue.held if queue else 0

    @property
    def total(self) -> int:
        """How many slots are held now, over all keys."""
        return sum(queue.held for queue in self._queues.values())

    @property
    def keys(self) -> int:
        """How many keys are in use."""
        return len(self._queues)

    def hold(self, key: Key) -> "_Hold[Key]":
        """Hold a slot of `key` within. Raises what `refusal` makes after `wait_seconds`."""
        return _Hold(self, key)

    async def acquire(self, key: Key) -> None:
        """Take a slot, waiting for one if need be; `release` gives it back."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        if queue.held < self._limit:
            queue.held += 1
            return
        await self._wait(key, queue)

    def release(self, key: Key) -> None:
        """Give a slot back: to the first who waits, if anybody does."""
        queue = self._queues[key]
        while queue.waiters:
            waiter = queue.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot changes hands; `held` stays
                return
        queue.held -= 1
        if not queue.held:
            del self._queues[key]

    async def _wait(self, key: Key, queue: _Queue) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        queue.waiters.append(waiter)
        alarm = loop.create_task(self._clock.sleep(self._wait_seconds))

        def refuse(_alarm: asyncio.Task[None]) -> None:
            if not waiter.done():
                waiter.set_exception(self._refusal())

        alarm.add_done_callback(refuse)
        self._observer.waiting(1)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(key)  # cancelled just after the slot was handed over
            elif waiter in queue.waiters:
                queue.waiters.remove(waiter)
            raise
        finally:
            self._observer.waiting(-1)
            alarm.remove_done_callback(refuse)
            alarm.cancel()


class _Hold(Generic[Key]):
    """What `async with` needs, without a generator's cost: every request has one."""

    __slots__ = ("_key", "_slots")

    def __init__(self, slots: Slots[Key], key: Key) -> None:
        self._slots = slots
        self._key = key

    async def __aenter__(self) -> None:
        await self._slots.acquire(self._key)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(self._key)


def device_overloaded() -> FacadeError:
    """The refusal when one device asks for too much at once."""
    return Unavailable(
        "This device has too many requests open at once; let some finish and try again.",
        reason=Reason.OVERLOADED,
        retry_after=RETRY_AFTER_SECONDS,
    )


def upstream_overloaded() -> FacadeError:
    """The refusal when too many transfers from one registry run already."""
    return Unavailable(
        "Too many transfers from this registry are running; try again shortly.",
        reason=Reason.OVERLOADED,
        retry_after=RETRY_AFTER_SECONDS,
    )
