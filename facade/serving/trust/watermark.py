"""The latest time ever seen, kept across restarts: a clock that was set back is noticed.

Guarantees: after `check` has seen a time, an earlier one by more than `TOLERANCE_SECONDS` is
refused, in this process at once and after a restart from what `persist` wrote. Setting the clock
back would otherwise bring expired metadata and certificates back to life. Does not know the true
time: a clock that was once far ahead has to be forgiven by hand (the error says how).
"""

import contextlib
import math
import os
from pathlib import Path

from facade.clock import Clock
from facade.errors import Unavailable
from facade.reasons import Reason

TOLERANCE_SECONDS = 300.0
"""How far a clock may be corrected backwards (trust.md, "Fail closed")."""
FILE_NAME = "highest-time"
_MAX_BYTES = 64


class Watermark:
    """The highest wall time seen.

    Arguments:
        path: where it is kept.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._highest = _read(path)

    def check(self) -> float:
        """The present wall time, Unix seconds. Raises Unavailable (CLOCK_SET_BACK)."""
        now = self._clock.time()
        if now > self._highest:
            self._highest = now
        elif now < self._highest - TOLERANCE_SECONDS:
            raise Unavailable(
                f"This machine's clock is {self._highest - now:.0f} seconds behind a time that it "
                f"has shown before. Set it right; if it was wrong earlier, remove the file "
                f"{FILE_NAME} in the metadata folder and restart.",
                reason=Reason.CLOCK_SET_BACK,
                retry_after=TOLERANCE_SECONDS,
            )
        return now

    def persist(self) -> None:
        """Write it down, durably. Blocking; raises OSError."""
        temporary = self._path.with_name(f"{FILE_NAME}.new")
        with temporary.open("w", encoding="ascii") as file:
            file.write(f"{self._highest:.0f}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


def _read(path: Path) -> float:
    """What was written; 0 when there is nothing readable (a first start, or torn by hand)."""
    with contextlib.suppress(OSError, ValueError), path.open(encoding="ascii") as file:
        value = float(file.read(_MAX_BYTES))
        if math.isfinite(value):
            return value
    return 0.0
