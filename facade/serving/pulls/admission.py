"""Bounds, so that overload is answered: a request first waits for its slot, then is refused.

Guarantees: never more than `limit` holders per key. Askers that wait for slots of one key get them in
turn, one each (round robin), and each asker's own waiters first come, first served: who queued
sixty does not keep another waiting for the first. Work that several ask for waits in the line of
each of them, and gets its slot when the first of these lines comes to it. A slot is given back
exactly once, whatever is cancelled when. Keys that nobody holds cost nothing. Keys have slots of
their own, and share nothing (pull-path.md, "Bounds").
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


class _Waiter:
    """One piece of work that waits, in the line of everybody who asked for it."""

    __slots__ = ("askers", "granted", "work")

    def __init__(self, work: Hashable) -> None:
        self.work = work
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.askers: list[Hashable] = []


class _Queue:
    """The holders and waiters of one key."""

    __slots__ = ("_lines", "_works", "held")

    def __init__(self) -> None:
        self.held = 0
        self._lines: dict[Hashable, deque[_Waiter]] = {}  # in the order of their turns
        self._works: dict[Hashable, _Waiter] = {}

    def add(self, waiter: _Waiter, asker: Hashable) -> None:
        """Put it at the end of the asker's line."""
        waiter.askers.append(asker)
        self._lines.setdefault(asker, deque()).append(waiter)
        if waiter.work is not None:
            self._works[waiter.work] = waiter

    def find(self, work: Hashable) -> _Waiter | None:
        return self._works.get(work)

    def remove(self, waiter: _Waiter) -> None:
        """Take it out of every line it stands in."""
        for asker in waiter.askers:
            line = self._lines[asker]
            line.remove(waiter)
            if not line:
                del self._lines[asker]
        waiter.askers.clear()
        if self._works.get(waiter.work) is waiter:
            del self._works[waiter.work]

    def next(self) -> _Waiter | None:
        """Who gets the next slot, taken out; the asker whose turn it was goes to the end."""
        for asker, line in list(self._lines.items()):
            waiter = next((one for one in line if not one.granted.done()), None)
            if waiter is None:
                continue  # refused or cancelled, and about to leave by themselves
            self.remove(waiter)
            if asker in self._lines:
                self._lines[asker] = self._lines.pop(asker)
            return waiter
        return None


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

    def free(self, key: Key) -> bool:
        """Whether one of `key` would be had without waiting."""
        return self.held(key) < self._limit

    @property
    def total(self) -> int:
        """How many slots are held now, over all keys."""
        return sum(queue.held for queue in self._queues.values())

    @property
    def keys(self) -> int:
        """How many keys are in use."""
        return len(self._queues)

    def hold(self, key: Key, asker: Hashable = None, work: Hashable = None) -> "_Hold[Key]":
        """Hold a slot of `key` within. Raises what `refusal` makes after `wait_seconds`."""
        return _Hold(self, key, asker, work)

    async def acquire(self, key: Key, asker: Hashable = None, work: Hashable = None) -> None:
        """Take a slot, waiting for one if need be; `release` gives it back.

        Arguments:
            asker: whose turn this takes.
            work: names what the slot is for, so that others can `join` its waiting.
        """
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
        if queue.held < self._limit:
            queue.held += 1
            return
        await self._wait(key, queue, asker, work)

    def join(self, key: Key, asker: Hashable, work: Hashable) -> None:
        """`asker` wants `work` too: if it waits for its slot, it waits in this line as well."""
        queue = self._queues.get(key)
        waiter = queue.find(work) if queue is not None else None
        if queue is not None and waiter is not None and asker not in waiter.askers:
            queue.add(waiter, asker)

    def release(self, key: Key) -> None:
        """Give a slot back: to the next who waits, if anybody does."""
        queue = self._queues[key]
        waiter = queue.next()
        if waiter is not None:
            waiter.granted.set_result(None)  # the slot changes hands; `held` stays
            return
        queue.held -= 1
        if not queue.held:
            del self._queues[key]

    async def _wait(self, key: Key, queue: _Queue, asker: Hashable, work: Hashable) -> None:
        waiter = _Waiter(work)
        queue.add(waiter, asker)
        granted = waiter.granted
        alarm = asyncio.create_task(self._clock.sleep(self._wait_seconds))

        def refuse(_alarm: asyncio.Task[None]) -> None:
            if not granted.done():
                granted.set_exception(self._refusal())

        alarm.add_done_callback(refuse)
        self._observer.waiting(1)
        try:
            await granted
        except BaseException:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(key)  # cancelled just after the slot was handed over
            raise
        finally:
            queue.remove(waiter)
            self._observer.waiting(-1)
            alarm.remove_done_callback(refuse)
            alarm.cancel()


class _Hold(Generic[Key]):
    """What `async with` needs, without a generator's cost: every request has one."""

    __slots__ = ("_asker", "_key", "_slots", "_work")

    def __init__(self, slots: Slots[Key], key: Key, asker: Hashable, work: Hashable) -> None:
        self._slots = slots
        self._key = key
        self._asker = asker
        self._work = work

    async def __aenter__(self) -> None:
        await self._slots.acquire(self._key, self._asker, self._work)

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
