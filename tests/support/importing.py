"""An importer with a registry in memory, real records and a real signed repository.

Guarantees: everything that import writes is written for real, below one folder.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facade.control.api.services import ImportOrder
from facade.control.catalog.artifacts import Artifacts
from facade.control.catalog.batch import TagOutcome
from facade.control.catalog.importer import Importer
from facade.control.catalog.manifests import ClosureManifests
from facade.control.catalog.records import ImportRecords
from facade.control.pulls import PullRecords
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.upstream.connection import Connection
from tests.support.clock import FakeClock
from tests.support.control import fresh_database
from tests.support.memory_registry import MemoryRegistry, OneConnection
from tests.support.signing import SignedRepository, make_repository

HOST = RegistryHost("registry.example")
REPOSITORY = Repository("org/app")
CONNECTION = Connection("c1", HOST, "static")


@dataclass
class Importing:
    """Everything around an importer."""

    registry: MemoryRegistry
    signed: SignedRepository
    manifests: ClosureManifests
    records: ImportRecords
    pulls: PullRecords
    importer: Importer
    artifacts: Artifacts
    clock: FakeClock
    events: list[Mapping[str, Any]] = field(default_factory=list)

    async def run(self, *references: str, **order: Any) -> Sequence[TagOutcome]:
        """Import into the fleet dev."""
        parsed = tuple(Digest.parse(r) if ":" in r else Tag.parse(r) for r in references)
        given = {"host": HOST, "repository": REPOSITORY, "fleet": "dev", **order}
        made = ImportOrder(references=parsed, **given)
        return await self.importer.run(made, actor="op", progress=self.events.append)


@asynccontextmanager
async def importing(folder: Path, *fleets: str) -> AsyncIterator[Importing]:
    """An importer for `fleets` ("dev", if none is given)."""
    clock, registry, lookup = FakeClock(), MemoryRegistry(), OneConnection(CONNECTION)
    signed = await asyncio.to_thread(make_repository, folder / "signing", *(fleets or ("dev",)))
    async with fresh_database(folder) as database:
        manifests = ClosureManifests(database, clock)
        records, pulls = ImportRecords(database, clock), PullRecords(database)
        shared: dict[str, Any] = {
            "connections": lookup,
            "registry": registry,
            "publisher": signed.publisher,
            "manifests": manifests,
            "records": records,
        }
        yield Importing(
            *(registry, signed, manifests, records, pulls),
            clock=clock,
            importer=Importer(**shared),
            artifacts=Artifacts(**shared, pulls=pulls),
        )
