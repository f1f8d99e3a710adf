"""How many of one device's pulls are written down: the records are bounded, and belong to all devices.

Guarantees: a device that asks without end cannot push the others' rows out; what it is left is far more
than any runtime needs. Memory is bounded; a device that was forgotten starts afresh. Pure.
"""

from collections import OrderedDict

BURST = 2000
"""Rows at once: some fifty images."""
PER_MINUTE = 20.0
"""Rows for good: with a million kept, one device alone takes a month to fill them."""
MAX_DEVICES = 10_000
_MINUTE = 60.0


class DeviceQuota:
    """A token bucket for each device."""

    def __init__(
        self, *, burst: int = BURST, per_minute: float = PER_MINUTE, devices: int = MAX_DEVICES
    ) -> None:
        self._burst = burst
        self._per_second = per_minute / _MINUTE
        self._devices = devices
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, device: str, now: float) -> bool:
        """Whether one more row of `device` is written at `now` (monotonic seconds)."""
        left, at = self._left.pop(device, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) * self._per_second)
        taken = left >= 1
        self._left[device] = (left - 1 if taken else left, now)
        if len(self._left) > self._devices:
            self._left.popitem(last=False)
        return taken
