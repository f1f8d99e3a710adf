"""What is remembered of imports beside the signed metadata: who, when, from which tag, how large.

Guarantees: a path is remembered for good, also after it was withdrawn, with the digest it stood for.
Grants nothing: what may be served is in the signed metadata alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, insert, select, tuple_, update

from facade.clock import Clock
from facade.control.catalog.history import Imported, ImportRecord
from facade.control.database.engine import Database
from facade.control.database.tables import artifacts as table
from facade.oci.digest import Digest


class ImportRecords:
    """Remembers imports."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def remember(self, imports: Sequence[Imported], *, actor: str) -> None:
        """Note imports, dated now; one that was withdrawn is back. Raises Unavailable."""
        if not imports:
            return
        rows = [_row(each, actor, self._clock.time()) for each in imports]
        async with self._database.write() as connection:
            await connection.execute(insert(table).prefix_with("OR REPLACE"), rows)

    async def withdrawn(self, path: tuple[str, str, str], *, actor: str) -> None:
        """Note that an artifact was withdrawn now. Raises Unavailable."""
        fleet, name, version = path
        async with self._database.write() as connection:
            await connection.execute(
                update(table)
                .where(table.c.fleet == fleet, table.c.name == name, table.c.version == version)
                .values(withdrawn_by=actor, withdrawn_at=self._clock.time())
            )

    async def of_name(self, fleet: str, name: str) -> Sequence[ImportRecord]:
        """Everything ever imported under a name, oldest first. Raises Unavailable."""
        query = (
            select(table)
            .where(table.c.fleet == fleet, table.c.name == name)
            .order_by(table.c.imported_at, table.c.version)
        )
        async with self._database.read() as connection:
            return tuple(map(_record, (await connection.execute(query)).all()))

    async def by_path(self, paths: Sequence[tuple[str, str, str]]) -> Mapping[str, ImportRecord]:
        """The records of some (fleet, name, version), by path. Raises Unavailable."""
        if not paths:
            return {}
        key = tuple_(table.c.fleet, table.c.name, table.c.version)
        async with self._database.read() as connection:
            rows = (await connection.execute(select(table).where(key.in_(paths)))).all()
        return {record.path: record for record in map(_record, rows)}


def _row(imported: Imported, actor: str, now: float) -> dict[str, Any]:
    target = imported.target
    return {
        "fleet": target.fleet,
        "name": target.name,
        "version": target.version,
        "registry": str(target.registry),
        "repository": str(target.repository),
        "reference": imported.reference,
        "digest": str(target.digest),
        "manifests": imported.manifests,
        "blobs": imported.blobs,
        "bytes": imported.bytes,
        "imported_by": actor,
        "imported_at": now,
        "withdrawn_by": None,
        "withdrawn_at": None,
    }


def _record(row: Row[Any]) -> ImportRecord:
    return ImportRecord(**{**row._mapping, "digest": Digest.parse(row.digest)})  # noqa: SLF001 - its public API
