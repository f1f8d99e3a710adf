"""The manifests of imported artifacts, kept so that a pull needs none from upstream (trust.md).

Guarantees: what `get` gives hashes to the digest asked for; a row that was damaged counts as absent
(the serving side then asks upstream). A manifest is kept for the registry and repository that it was
imported from, and found there only.
"""

from collections.abc import Mapping

import structlog
from sqlalchemy import insert, select

from facade.clock import Clock
from facade.control.database.engine import Database
from facade.control.database.tables import closure_manifests as table
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository

log = structlog.get_logger(__name__)


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
