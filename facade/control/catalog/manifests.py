"""The manifests of imported artifacts, kept so that a pull needs none from upstream (trust.md).

Guarantees: what `get` gives hashes to the digest asked for; a row that was damaged counts as absent
(the serving side then asks upstream). A manifest is kept for the registry and repository that it was
imported from, and found there only.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import ColumnElement, delete, insert, select

from facade.clock import Clock
from facade.control.catalog.ports import Place
from facade.control.database.engine import Database
from facade.control.database.tables import closure_manifests as table
from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository

log = structlog.get_logger(__name__)

T = TypeVar("T")
_BATCH = 500
"""Values in one statement; SQLite takes some thousands."""


class ClosureManifests:
    """Keeps manifests by (registry, repository, digest)."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def keep(
        self, registry: RegistryHost, repository: Repository, manifests: Mapping[Digest, bytes]
    ) -> None:
        """Keep verified manifests. Raises Unavailable."""
        if not manifests:
            return
        now = self._clock.time()
        rows = [
            {
                "registry": str(registry),
                "repository": str(repository),
                "digest": str(digest),
                "data": data,
                "kept_at": now,
            }
            for digest, data in manifests.items()
        ]
        async with self._database.write() as connection:
            # A damaged row is repaired by the next import.
            await connection.execute(insert(table).prefix_with("OR REPLACE"), rows)

    async def get(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        """The manifest's bytes, None when they are not kept (whole). Raises Unavailable."""
        query = select(table.c.data).where(
            table.c.registry == str(registry),
            table.c.repository == str(repository),
            table.c.digest == str(digest),
        )
        async with self._database.read() as connection:
            data = (await connection.execute(query)).scalar_one_or_none()
        if data is None:
            return None
        if not digest.matches(data):
            log.error("kept_manifest_damaged", registry=str(registry), digest=str(digest))
            return None
        return bytes(data)

    async def places(self) -> Sequence[Place]:
        """Where manifests were imported from, in order. Raises Unavailable."""
        columns = table.c.registry, table.c.repository
        async with self._database.read() as connection:
            rows = await connection.execute(select(*columns).distinct().order_by(*columns))
            return [
                (RegistryHost.parse(row.registry), Repository.parse(row.repository)) for row in rows
            ]

    async def some(self, place: Place, digests: Collection[Digest]) -> Mapping[Digest, bytes]:
        """Those of the manifests that are kept. Raises Integrity when one is damaged, Unavailable."""
        found: dict[Digest, bytes] = {}
        for batch in _batches(digests):
            query = select(table.c.digest, table.c.data).where(
                *_of(place), table.c.digest.in_(map(str, batch))
            )
            async with self._database.read() as connection:
                rows = (await connection.execute(query)).all()
            found |= {Digest.parse(row.digest): bytes(row.data) for row in rows}
        for digest, data in found.items():
            if not digest.matches(data):
                raise Integrity(f"The kept manifest {digest} is damaged.")
        return found

    async def forget(self, place: Place, *, but: Collection[Digest], kept_before: float) -> int:
        """Delete what is kept from `place`, less `but` and what was kept since; how many.

        Raises Unavailable.
        """
        old = (*_of(place), table.c.kept_at < kept_before)
        async with self._database.read() as connection:
            digests = (await connection.execute(select(table.c.digest).where(*old))).scalars().all()
        gone = sorted(set(digests) - set(map(str, but)))
        for batch in _batches(gone):
            async with self._database.write() as connection:
                # Its age is asked once more: an import may just have kept it again.
                await connection.execute(delete(table).where(*old, table.c.digest.in_(batch)))
        return len(gone)


def _of(place: Place) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    registry, repository = place
    return table.c.registry == str(registry), table.c.repository == str(repository)


def _batches(values: Collection[T]) -> Iterator[Sequence[T]]:
    ordered = list(values)
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]
