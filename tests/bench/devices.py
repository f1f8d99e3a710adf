"""Devices of whose pulls all are written down.

Guarantees: no device is given out for more pulls than the facade writes down of one at once
(`DeviceQuota`); what comes after is served and logged, but costs no record, and a figure
would not say so.
"""

from collections.abc import Callable
from pathlib import Path

from facade.serving.pulls.quota import BURST


class Rested:
    """One device after another.

    Arguments:
        enrol: makes a further device; its folder.
    """

    def __init__(self, enrol: Callable[[], Path]) -> None:
        self._enrol = enrol
        self._device = Path()
        self._left = 0

    def device(self, pulls: int) -> Path:
        """One that may make `pulls` more, which count as made."""
        if pulls > BURST:
            raise ValueError(f"Of one device {BURST} pulls are written down, not {pulls}.")
        if pulls > self._left:
            self._device, self._left = self._enrol(), BURST
        self._left -= pulls
        return self._device
