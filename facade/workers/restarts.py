"""When a worker that ended is replaced. Pure.

Guarantees: the first time at once, so that what waits in its queue hardly waits; one that keeps ending
soon after its start is given more and more time, up to `MAX_DELAY_SECONDS`, and counts as
crashing from the third time in a row, until one has lived for `SETTLED_SECONDS`.
"""

from dataclasses import dataclass

SETTLED_SECONDS = 30.0
MAX_DELAY_SECONDS = 30.0
CRASHING_AFTER = 3


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often in a row a worker ended soon."""

    in_a_row: int = 0

    def ended(self, lived: float) -> "Restarts":
        """After another end, `lived` seconds after its start."""
        return Restarts(1 if lived >= SETTLED_SECONDS else self.in_a_row + 1)

    def settled(self) -> "Restarts":
        """After one has lived for `SETTLED_SECONDS`."""
        return Restarts()

    @property
    def delay(self) -> float:
        """Seconds to wait before the next start."""
        if self.in_a_row <= 1:
            return 0.0
        return min(MAX_DELAY_SECONDS, 2.0 ** min(self.in_a_row - 2, 10))

    @property
    def crashing(self) -> bool:
        """Whether it looks as if the next one will end too."""
        return self.in_a_row >= CRASHING_AFTER
