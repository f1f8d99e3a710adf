"""A clock that stands still until a test moves it.

Guarantees: `time()` and `monotonic()` change only by `advance`, `run_for`, `shift` or, in auto mode,
by somebody sleeping; sleepers wake in the order of their deadlines, each seeing its own deadline
as the time when woken by `run_for` or auto mode. Does not guarantee that work in threads or on
sockets, started by a woken task, is done when `run_for` goes on: it settles the event loop only.
"""

import asyncio
import heapq
import itertools

EPOCH = 1_750_000_000.0
"""Where a fake clock starts by default: Unix seconds, in June 2025."""
_SETTLE_ROUNDS = 20
_WAIT_LIMIT_SECONDS = 20.0


class FakeClock:
    """Implements `facade.clock.Clock`.

    Arguments:
        start: wall time, Unix seconds.
        auto: a `sleep` moves the clock to its own deadline by itself, once everybody who could
            sleep shorter had the chance to (so a loop of retries takes no real time).
    """

    def __init__(self, start: float = EPOCH, *, auto: bool = False) -> None:
        self._elapsed = 0.0
        self._start = start
        self._auto = auto
        self._ticking = False
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self.slept: list[float] = []
        """Every positive duration that `sleep` was asked for, in order of asking."""

    def time(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self.slept.append(seconds)
        woken = asyncio.get_running_loop().create_future()
        entry = (self._elapsed + seconds, next(self._order), woken)
        heapq.heappush(self._sleepers, entry)
        if self._auto and not self._ticking:
            self._ticking = True
            self._tick(_SETTLE_ROUNDS)
        try:
            await woken
        finally:
            if entry in self._sleepers:  # cancelled
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)

    @property
    def sleepers(self) -> int:
        """How many tasks sleep just now."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Jump ahead at once; whoever's deadline has passed wakes when the event loop next runs.

        A task that sleeps again after waking counts from the time after the jump: use
        `run_for` to see each of a periodic task's turns.
        """
        if seconds < 0:
            raise ValueError("Time does not run backwards; shift() sets the wall clock back.")
        self._move_to(self._elapsed + seconds)

    async def run_for(self, seconds: float) -> None:
        """Let `seconds` pass, stopping at every deadline on the way and letting the loop settle."""
        end = self._elapsed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._move_to(self._sleepers[0][0])
            await settle()
        self._move_to(end)
        await settle()

    def shift(self, seconds: float) -> None:
        """Set the wall clock ahead, or back when negative; the monotonic clock does not notice."""
        self._start += seconds

    async def wait_for_sleepers(self, count: int = 1) -> None:
        """Return when `count` tasks sleep, giving threads and sockets real time to get there.

        Raises TimeoutError after 20 real seconds.
        """
        async with asyncio.timeout(_WAIT_LIMIT_SECONDS):
            while len(self._sleepers) < count:  # noqa: ASYNC110 - real time, for real threads
                await asyncio.sleep(0.001)

    def _move_to(self, moment: float) -> None:
        self._elapsed = max(self._elapsed, moment)
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def _tick(self, rounds: int) -> None:
        """One turn of auto mode: after `rounds` of the loop, wake the next sleeper."""
        if not self._sleepers:
            self._ticking = False
            return
        if rounds == 0:
            self._move_to(self._sleepers[0][0])
            rounds = _SETTLE_ROUNDS
        asyncio.get_running_loop().call_soon(self._tick, rounds - 1)


async def settle() -> None:
    """Let every task that can run without waiting for the outside do so."""
    for _ in range(_SETTLE_ROUNDS):
        await asyncio.sleep(0)
