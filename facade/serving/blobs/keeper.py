"""Looking after the store as a whole: size, use times, rot, and partials that nobody wants.

Guarantees: `run` goes on through failures, which it logs; eviction starts soon after the store grew
beyond its bounds, whichever process filled it; an index that is damaged or gone is made anew, and told
of everything. Of the processes that share a store one keeps it; each writes its own use times, takes
up a new index, and answers what an operator asks (`status`, `verify`, `prune`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

import structlog

from facade.clock import Clock, on_the_beat
from facade.errors import Unavailable
from facade.serving.blobs.eviction import Bounds, Evictor, UseOrder
from facade.serving.blobs.scrub import IDLE_BYTES_PER_SECOND, Scrubber
from facade.serving.blobs.threads import run_to_end
from facade.wings import CacheStatus

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 10.0
ALL_RENEWED_SECONDS = 2 * FLUSH_SECONDS
"""When every process has taken up a new index: what one still writes into the old is lost."""
DUTY_SECONDS = 5.0
"""How often a process looks whether it is its turn to keep the store."""
LOOK_SECONDS = 1.0
"""How often the keeper looks whether anybody put anything into the store, or tries again where there was no room."""
REST_SECONDS = 0.2
"""The least time between two looks: an image's layers come in dozens a second, and share one. What comes in
meanwhile is little beside the room above the high watermark, unless the store is small: a quarter of a GiB,
filled by several processes with 200 MiB/s, is 3 % beyond its bound for moments. What is refused, `partials` says."""
SCRUB_PAUSE_SECONDS = 24 * 3600.0
PARTIAL_AGE_SECONDS = 24 * 3600.0
"""A partial not written for that long is swept."""


class Attic(Protocol):
    """What a store has beside its objects (`local.LocalStore`). Both block."""

    def quarantined(self) -> int:
        """How many failed objects are kept to look at."""
        ...

    def sweep_partials(self, older_than: float) -> int:
        """Delete partials last written before `older_than` (Unix seconds) that nobody writes."""
        ...


class StoreKeeper:
    """Keeps a store in order.

    Arguments:
        in_flight: how many transfers are under way.
        duty: takes up the keeping, if no other process does (`duty.Duty.take`); called in a thread.
        traces: a value that is another one whenever a process may have put something into the store;
            asked on the loop, so it does not wait for a disk.
    """

    def __init__(
        self,
        *,
        evictor: Evictor,
        scrubber: Scrubber,
        order: UseOrder,
        attic: Attic,
        bounds: Bounds,
        in_flight: Callable[[], int],
        clock: Clock,
        executor: Executor,
        duty: Callable[[], bool] = lambda: True,
        traces: Callable[[], object] = object,
    ) -> None:
        self._evictor = evictor
        self._scrubber = scrubber
        self._order = order
        self._attic = attic
        self._bounds = bounds
        self._in_flight = in_flight
        self._clock = clock
        self._executor = executor
        self._duty = duty
        self._traces = traces
        self._seen: object = None
        """The traces of what was found to fit."""
        self._room = 0
        """How much more was found to fit."""
        self._came = 0
        """What came into the store since, by way of this process."""
        self._grown = asyncio.Event()
        self._keeping = False
        self._lost_at: float | None = None
        """When an index was taken up that was not told of everything yet."""

    def grown(self, count: int) -> None:
        """So many bytes are coming into the store: see whether there is room, unless there surely is."""
        self._came += count
        if self._came > self._room:
            self._grown.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._beat(FLUSH_SECONDS), self._keep_index))
            await self._wait_for_duty()
            await self._know_all()
            self._keeping = True
            group.create_task(self._keep_size())
            group.create_task(self._again(self._beat(LOOK_SECONDS), self._look))
            group.create_task(
                self._again(partial(self._clock.sleep, SCRUB_PAUSE_SECONDS), self._tidy)
            )

    async def status(self) -> CacheStatus:
        """What the store holds. Raises Unavailable."""
        objects, size = await self._order.totals()
        return CacheStatus(
            objects=objects,
            bytes=size,
            max_bytes=self._bounds.max_bytes,
            in_flight=self._in_flight(),
            quarantined=await run_to_end(self._executor, self._attic.quarantined),
        )

    async def verify(self) -> tuple[int, int]:
        """Hash everything again: (objects checked, objects quarantined). Raises Unavailable."""
        return await self._scrubber.scrub()

    async def prune(self) -> tuple[int, int]:
        """Evict down to the low watermark: (objects, bytes) removed. Raises Unavailable."""
        return await self._evictor.evict()

    async def _wait_for_duty(self) -> None:
        while True:
            try:
                if await run_to_end(self._executor, self._duty):
                    return
            except OSError as error:
                log.warning("housekeeping_failed", error=error.strerror)
            await self._clock.sleep(DUTY_SECONDS)

    async def _know_all(self) -> None:
        """After the index was lost: what it does not know of is neither counted nor evicted."""
        try:
            if not (await self._order.totals())[0]:
                await self._rebuild()
        except (Unavailable, OSError) as error:
            log.warning("housekeeping_failed", error=str(error))

    async def _rebuild(self) -> None:
        count = await self._scrubber.take_in()
        if count:
            log.warning("index_rebuilt", objects=count)

    async def _keep_index(self) -> None:
        now = self._clock.monotonic()
        if await self._order.renew():
            self._lost_at = now
        await self._order.flush()
        lost = self._lost_at
        if self._keeping and lost is not None and now - lost >= ALL_RENEWED_SECONDS:
            await self._rebuild()
            self._lost_at = None
            self._grown.set()

    async def _look(self) -> None:
        if self._traces() != self._seen:
            self._grown.set()

    async def _keep_size(self) -> None:
        rested = self._clock.monotonic()
        while True:
            await self._grown.wait()
            await self._clock.sleep(rested - self._clock.monotonic())
            self._grown.clear()
            self._seen, self._room, self._came = self._traces(), 0, 0
            try:
                self._room = await self._evictor.room()
                if self._room < 0:
                    self._seen = None  # look again, whether anything came or not
                    await self._evictor.evict()
            except (Unavailable, OSError) as error:
                self._seen = None
                log.warning("eviction_failed", error=str(error))
            rested = self._clock.monotonic() + REST_SECONDS

    async def _tidy(self) -> None:
        limit = self._clock.time() - PARTIAL_AGE_SECONDS
        await run_to_end(self._executor, partial(self._attic.sweep_partials, limit))
        await self._scrubber.scrub(IDLE_BYTES_PER_SECOND)

    def _beat(self, seconds: float) -> Callable[[], Awaitable[None]]:
        return partial(on_the_beat, self._clock, seconds)

    async def _again(
        self, pause: Callable[[], Awaitable[None]], work: Callable[[], Awaitable[object]]
    ) -> None:
        while True:
            await pause()
            try:
                await work()
            except (Unavailable, OSError) as error:
                log.warning("housekeeping_failed", error=str(error))
