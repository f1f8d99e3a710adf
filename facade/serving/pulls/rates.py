"""How fast one device may ask and be sent to, where an operator bounds that: off unless configured.

Guarantees: a device within its rates never waits; one beyond them waits first, and is refused with
`device-rate-limited` and a Retry-After only when it would wait longer than a request waits for
its slot. A stream that has begun is slowed down, never refused. Memory is bounded by MAX_DEVICES.
Counts are this process's: with N workers a device may have up to N times as much. Bytes per day
are counted by UTC days and in memory alone: a restart begins a new day, and what runs when the
day's bytes are used up goes on to its end.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from facade.clock import Clock
from facade.errors import Unavailable
from facade.reasons import Reason

DeviceKey = tuple[str, str]

MAX_DEVICES = 65_536
"""Devices remembered; beyond that the one that was away longest starts afresh."""
_DAY_SECONDS = 86_400.0
_BURST_SECONDS = 10.0
_MIN_REQUEST_BURST = 32.0
"""A pull is a burst of some twenty requests: it must not wait where the average is kept."""
_BYTE_BURST_SECONDS = 1.0
_MIN_BYTE_BURST = 1024.0 * 1024.0


@dataclass(frozen=True, slots=True)
class Rates:
    """What one device may have; None = no bound.

    Arguments:
        requests_per_second: on average; 10 seconds' worth (at least 32) may come at once.
        bytes_per_second: of bodies; one second's worth (at least 1 MiB) may go at once.
        bytes_per_day: of bodies, by UTC days.
    """

    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    bytes_per_day: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is any bound."""
        return any((self.requests_per_second, self.bytes_per_second, self.bytes_per_day))


class RateObserver(Protocol):
    """Counts who waits."""

    def rate_waited(self, limit: str) -> None:
        """A device waited for its "requests" or "bytes"."""
        ...


class Bucket:
    """A token bucket that may go into debt: who takes more than there is waits it off. Pure."""

    __slots__ = ("_burst", "_looked", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = self._tokens = burst
        self._looked = now

    def wait(self, now: float) -> float:
        """Seconds until the debt is paid; 0 = there is none."""
        self._tokens = min(self._burst, self._tokens + (now - self._looked) * self._rate)
        self._looked = now
        return max(0.0, -self._tokens / self._rate)

    def take(self, count: float, now: float) -> float:
        """Take `count`; returns the seconds until that is paid."""
        self.wait(now)
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate)


class _Account:
    __slots__ = ("bytes", "day", "requests", "today")

    def __init__(self, rates: Rates, now: float) -> None:
        self.requests = _bucket(rates.requests_per_second, _BURST_SECONDS, _MIN_REQUEST_BURST, now)
        self.bytes = _bucket(rates.bytes_per_second, _BYTE_BURST_SECONDS, _MIN_BYTE_BURST, now)
        self.day = 0
        self.today = 0


def _bucket(rate: float | None, seconds: float, least: float, now: float) -> Bucket | None:
    return None if rate is None else Bucket(rate, max(least, rate * seconds), now)


class DeviceRates:
    """The accounts of all devices.

    Arguments:
        wait_seconds: longest wait before a refusal.
    """

    def __init__(
        self, rates: Rates, *, wait_seconds: float, clock: Clock, observer: RateObserver
    ) -> None:
        self._rates = rates
        self._wait_seconds = wait_seconds
        self._clock = clock
        self._observer = observer
        self._accounts: OrderedDict[DeviceKey, _Account] = OrderedDict()

    async def request(self, key: DeviceKey) -> None:
        """One request more: returns when it may go on. Raises Unavailable."""
        bucket = self._account(key).requests
        if bucket is None:
            return
        now = self._clock.monotonic()
        wait = bucket.wait(now)
        if wait > self._wait_seconds:
            raise _too_fast("This device asks too often", wait)
        wait = bucket.take(1.0, now)
        if wait > 0:
            await self._wait(wait, "requests")

    async def stream(self, key: DeviceKey) -> None:
        """A body is about to be sent: returns when it may begin. Raises Unavailable."""
        account = self._account(key)
        daily = self._rates.bytes_per_day
        if daily is not None and self._today(account) >= daily:
            left = _DAY_SECONDS - self._clock.time() % _DAY_SECONDS
            raise _too_fast("This device has used up its bytes of the day", left)
        if account.bytes is None:
            return
        wait = account.bytes.wait(self._clock.monotonic())
        if wait > self._wait_seconds:
            raise _too_fast("This device fetches too much at once", wait)
        if wait > 0:
            await self._wait(wait, "bytes")

    async def sent(self, key: DeviceKey, count: int) -> None:
        """`count` bytes of a body went out: returns when the next may."""
        account = self._account(key)
        if self._rates.bytes_per_day is not None:
            account.today = self._today(account) + count
        if account.bytes is None:
            return
        wait = account.bytes.take(count, self._clock.monotonic())
        if wait > 0:
            await self._wait(wait, "bytes")

    def _account(self, key: DeviceKey) -> _Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(self._rates, self._clock.monotonic())
            if len(self._accounts) > MAX_DEVICES:
                self._accounts.popitem(last=False)
        else:
            self._accounts.move_to_end(key)
        return account

    def _today(self, account: _Account) -> int:
        day = int(self._clock.time() // _DAY_SECONDS)
        if account.day != day:
            account.day, account.today = day, 0
        return account.today

    async def _wait(self, seconds: float, limit: str) -> None:
        self._observer.rate_waited(limit)
        await self._clock.sleep(seconds)


def _too_fast(what: str, wait: float) -> Unavailable:
    return Unavailable(
        f"{what}; try again later.", reason=Reason.DEVICE_RATE_LIMITED, retry_after=wait
    )
