"""Changing the sealing key while everything goes on.

A rotation is: a fresh key into the ring's file, as the one that seals; every stored secret sealed
again with it, in one transaction; the database's leftovers of the old ciphertexts overwritten; the
old keys out of the file; and out of this process, with the cached tokens that they sealed.

Guarantees: whenever it is interrupted, what is stored opens with the keys that are in the file, and the
next rotation finishes what was left. When it has returned, the old keys open nothing in the
database file (its write-ahead log included) any more. Does not reach copies: a backup of the
database opens with a backup of its key.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from facade.control.connections.sealing import KeyRing, Sealer
from facade.errors import Conflict

log = structlog.get_logger(__name__)

CONNECTIONS = "connections"
TOKENS = "tokens"
"""What the subkeys are for (`sealing.Sealer`)."""


class SealedRows(Protocol):
    """`control.connections.store.ConnectionStore`."""

    async def reseal(self, sealer: Sealer) -> int: ...


class SealedTokens(Protocol):
    """`control.credentials.cache.redis.RedisTokenCache`."""

    async def reseal(self, sealer: Sealer, retired: frozenset[str]) -> None: ...


class Leftovers(Protocol):
    """`control.database.engine.Database`."""

    async def erase_leftovers(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rotated:
    """What came of it.

    Arguments:
        key: id of the key that seals now.
        resealed: how many connections' secrets were sealed again.
        retired: ids of the keys that open nothing any more.
    """

    key: str
    resealed: int
    retired: tuple[str, ...]


class SealingRotation:
    """Rotates the key of one ring file.

    Arguments:
        ring: what this process read from `key_file`.
        tokens: a shared cache of sealed tokens, where there is one.
        save: writes the ring's file, in one step.
    """

    def __init__(
        self,
        key_file: Path,
        ring: KeyRing,
        *,
        rows: SealedRows,
        leftovers: Leftovers,
        tokens: SealedTokens | None = None,
        save: Callable[[KeyRing, Path], None] = KeyRing.save,
    ) -> None:
        self._key_file = key_file
        self._ring = ring
        self._rows = rows
        self._leftovers = leftovers
        self._tokens = tokens
        self._save = save
        self._lock = asyncio.Lock()

    async def rotate(self) -> Rotated:
        """Change the key; returns when the old one is useless.

        Raises Conflict when the key file is not the one that this process works with, Unavailable
        when the file or the database cannot be written; what is stored opens in any case.
        """
        async with self._lock:
            kept = await asyncio.to_thread(KeyRing.load, self._key_file)
            if self._ring.primary not in kept.ids:
                raise Conflict(
                    f"The sealing key file {self._key_file} is not the one that this facade was "
                    "started with. Put that one back, or restart; nothing was changed."
                )
            both = kept.with_fresh_primary()
            await asyncio.to_thread(self._save, both, self._key_file)
            self._ring = both
            resealed = await self._rows.reseal(Sealer(both, CONNECTIONS))
            await self._leftovers.erase_leftovers()
            last = both.only_primary()
            await asyncio.to_thread(self._save, last, self._key_file)
            self._ring = last
            # Nothing is left to seal again: this makes the process itself forget the old keys.
            await self._rows.reseal(Sealer(last, CONNECTIONS))
            retired = both.ids - last.ids
            if self._tokens is not None:
                await self._tokens.reseal(Sealer(last, TOKENS), retired)
            log.info("sealing_key_rotated", count=resealed)
            return Rotated(last.primary, resealed, tuple(sorted(retired)))
