"""A sealing key that rotates in memory, for tests of the operator port and the CLI."""

from collections.abc import Sequence
from dataclasses import dataclass

from facade.errors import FacadeError


@dataclass(frozen=True)
class Rotated:
    """A SealingRotated."""

    key: str
    resealed: int = 2
    retired: Sequence[str] = ("0ld",)


@dataclass
class FakeSealing:
    """Counts rotations; fails when told so."""

    rotations: int = 0
    failure: FacadeError | None = None

    async def rotate(self) -> Rotated:
        if self.failure is not None:
            raise self.failure
        self.rotations += 1
        return Rotated(f"key{self.rotations}")
