"""API keys of operators.

Guarantees: a key is 256 random bits, shown once, when it is made; only its SHA-256 is stored (a slow
hash would add nothing to that many bits). A revoked key is refused from the next request on.
Does not say what a permission means: `control.api` does.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import Row, delete, insert, select, update

from facade.clock import Clock
from facade.control.database.engine import Database
from facade.control.database.tables import api_keys as table
from facade.errors import Invalid, NotFound, Unavailable
from facade.secret import Secret

log = structlog.get_logger(__name__)

KEY_BYTES = 32
PREFIX = "facade_"
"""Lets a secret scanner, and a person, know what it is."""
LAST_USED_SECONDS = 60.0
"""`last_used` is written at most this often per key: it is no reason for a write per request."""
MAX_NAME_CHARS = 255


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its value. Times are Unix seconds; `fleets` None = all."""

    id: str
    name: str
    permissions: frozenset[str]
    fleets: frozenset[str] | None
    created_by: str
    created_at: float
    last_used: float | None = None


class ApiKeys:
    """Makes, checks, lists and revokes keys. `load` comes first."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._hashes: set[str] = set()

    async def load(self) -> None:
        """Read which keys there are. Raises Unavailable."""
        async with self._database.read() as connection:
            self._hashes = set((await connection.execute(select(table.c.hash))).scalars())

    def known(self, key: Secret) -> bool:
        """Whether it is one of ours, from memory; `authenticate` decides."""
        return _hash(key) in self._hashes

    async def authenticate(self, key: Secret) -> ApiKey | None:
        """Whose key it is; None when it is unknown or revoked. Raises Unavailable."""
        async with self._database.read() as connection:
            query = select(table).where(table.c.hash == _hash(key))
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        found, now = _key(row), self._clock.time()
        if found.last_used is None or now - found.last_used >= LAST_USED_SECONDS:
            await self._used(found.id, now)
        return found

    async def _used(self, key_id: str, now: float) -> None:
        """Note it, if that is possible: on a full disk an operator must still be able to revoke."""
        try:
            async with self._database.write() as connection:
                await connection.execute(
                    update(table).where(table.c.id == key_id).values(last_used=now)
                )
        except Unavailable as error:
            log.warning("api_key_use_unwritten", error=error.message)

    async def create(
        self,
        name: str,
        permissions: frozenset[str],
        fleets: frozenset[str] | None,
        *,
        actor: str,
    ) -> tuple[ApiKey, Secret]:
        """Make a key; its value is given this once.

        Raises Invalid for an empty or overlong name, Unavailable.
        """
        if not name.strip() or len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise Invalid(f"Give the key a name of at most {MAX_NAME_CHARS} characters.")
        secret = Secret(PREFIX + secrets.token_urlsafe(KEY_BYTES))
        made = ApiKey(
            id=secrets.token_hex(8),
            name=name,
            permissions=permissions,
            fleets=fleets,
            created_by=actor,
            created_at=self._clock.time(),
        )
        async with self._database.write() as connection:
            await connection.execute(
                insert(table).values(
                    id=made.id,
                    name=made.name,
                    hash=_hash(secret),
                    permissions=sorted(permissions),
                    fleets=None if fleets is None else sorted(fleets),
                    created_by=actor,
                    created_at=made.created_at,
                )
            )
        self._hashes.add(_hash(secret))
        return made, secret

    async def list(self) -> Sequence[ApiKey]:
        """All keys, oldest first. Raises Unavailable."""
        async with self._database.read() as connection:
            query = select(table).order_by(table.c.created_at, table.c.id)
            return tuple(map(_key, (await connection.execute(query)).all()))

    async def revoke(self, key_id: str) -> ApiKey:
        """Refuse the key from now on. Raises NotFound, Unavailable."""
        async with self._database.write() as connection:
            query = select(table).where(table.c.id == key_id)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise NotFound("There is no API key with that id. See: facade apikey list")
            await connection.execute(delete(table).where(table.c.id == key_id))
        self._hashes.discard(row.hash)
        return _key(row)


def _hash(key: Secret) -> str:
    return hashlib.sha256(key.reveal().encode()).hexdigest()


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        permissions=frozenset(row.permissions),
        fleets=None if row.fleets is None else frozenset(row.fleets),
        created_by=row.created_by,
        created_at=row.created_at,
        last_used=row.last_used,
    )
