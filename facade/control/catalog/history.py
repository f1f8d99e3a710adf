"""What is remembered of imports, as values, and the port to where it is kept.

Grants nothing: what may be served is in the signed metadata alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from facade.oci.digest import Digest
from facade.target import SignedTarget


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """One import. Times are Unix seconds.

    Arguments:
        reference: the tag, or the digest that was asked for.
        manifests, blobs: how many the closure has; `bytes` all together.
    """

    fleet: str
    name: str
    version: str
    registry: str
    repository: str
    reference: str
    digest: Digest
    manifests: int
    blobs: int
    bytes: int
    imported_by: str
    imported_at: float
    withdrawn_by: str | None = None
    withdrawn_at: float | None = None

    @property
    def path(self) -> str:
        """The TUF target path."""
        return f"{self.fleet}/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Imported:
    """A target just signed, with its closure's size."""

    target: SignedTarget
    reference: str
    manifests: int
    blobs: int
    bytes: int


class Records(Protocol):
    """Remembers imports for good (`control.catalog.records.ImportRecords`)."""

    async def remember(self, imports: Sequence[Imported], *, actor: str) -> None:
        """Note imports, dated now; one that was withdrawn is back. Raises Unavailable."""
        ...

    async def withdrawn(self, path: tuple[str, str, str], *, actor: str) -> None:
        """Note that an artifact was withdrawn now. Raises Unavailable."""
        ...

    async def of_name(self, fleet: str, name: str) -> Sequence[ImportRecord]:
        """Everything ever imported under a name, oldest first. Raises Unavailable."""
        ...

    async def by_path(self, paths: Sequence[tuple[str, str, str]]) -> Mapping[str, ImportRecord]:
        """The records of some (fleet, name, version), by path. Raises Unavailable."""
        ...
