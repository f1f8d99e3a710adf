"""The deny list and the record of issued certificates, in the control database.

Guarantees: `revocations()` is an immutable value, replaced in one assignment after the change is
committed; its `generation` counts up with every change. A revoked device stays out, whatever
certificate it shows, until it is restored; restoring never re-admits a certificate that began
before the revocation. Does not guarantee that another process sees a change: one process
owns the list. Certificates begin on whole seconds, so one issued within the second of a
revocation counts as issued before it.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from facade.control.database.engine import Database
from facade.control.database.tables import (
    certificate_revocations,
    device_revocations,
    devices,
)
from facade.errors import NotFound
from facade.wings import Revocations

DeviceName = tuple[str, str]
"""(fleet, name)."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was issued here; times in Unix seconds, serial in hex."""

    fleet: str
    name: str
    issuer: str
    serial: str
    fingerprint: str
    not_before: float
    not_after: float
    issued_at: float
    issued_by: str


@dataclass(frozen=True, slots=True)
class Revoked:
    """A device's entry: when it was revoked, and whether it was restored since."""

    at: float
    restored: bool


class DenyList:
    """Issued certificates and what was revoked. `load` comes first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._issued: Mapping[DeviceName, tuple[Issued, ...]] = {}
        self._revoked: Mapping[DeviceName, Revoked] = {}
        self._certificates: frozenset[tuple[str, str]] = frozenset()
        self._revocations = Revocations()
        self._lock = asyncio.Lock()  # commits and their snapshots come in the same order
        self.generation = 0
        """Counts up with every change."""

    async def load(self) -> None:
        """Read everything. Raises Unavailable."""
        async with self._lock, self._database.read() as connection:
            await connection.run_sync(self._read)

    def revocations(self) -> Revocations:
        """What the serving wing refuses; never blocks."""
        return self._revocations

    def issued(self, device: DeviceName) -> tuple[Issued, ...]:
        """Its certificates, oldest first."""
        return self._issued.get(device, ())

    def revoked(self, device: DeviceName) -> Revoked | None:
        """Its entry, if it was ever revoked."""
        return self._revoked.get(device)

    def is_revoked(self, issuer: str, serial: str) -> bool:
        """Whether that one certificate was revoked by its serial."""
        return (issuer, serial) in self._certificates

    def names(self) -> list[DeviceName]:
        """Every device that was issued a certificate or revoked here, sorted."""
        return sorted({*self._issued, *self._revoked})

    async def record(self, issued: Issued) -> None:
        """Remember an issued certificate. Raises Conflict, Unavailable."""
        values = {field: getattr(issued, field) for field in issued.__slots__}
        await self._change(lambda connection: connection.execute(insert(devices).values(values)))

    async def revoke_device(self, device: DeviceName, at: float, by: str) -> None:
        """Refuse all certificates of `device`, those known here whatever the clock says today.

        Raises Unavailable.
        """
        fleet, name = device
        # A clock set back must not make an old certificate count as newer than its revocation.
        before = self.revoked(device)
        known = [issued.not_before for issued in self.issued(device)]
        at = max(at, *known, before.at if before else at)
        table = device_revocations

        def change(connection: Connection) -> None:
            connection.execute(delete(table).where(table.c.fleet == fleet, table.c.name == name))
            connection.execute(
                insert(table).values(fleet=fleet, name=name, revoked_at=at, revoked_by=by)
            )

        await self._change(change)

    async def revoke_certificates(
        self, certificates: Sequence[tuple[str, str]], at: float, by: str
    ) -> None:
        """Refuse single certificates, each (issuer, serial). Raises Unavailable."""
        fresh = [pair for pair in dict.fromkeys(certificates) if pair not in self._certificates]
        rows = [
            {"issuer": issuer, "serial": serial, "revoked_at": at, "revoked_by": by}
            for issuer, serial in fresh
        ]
        if rows:
            await self._change(
                lambda connection: connection.execute(insert(certificate_revocations), rows)
            )

    async def restore(self, device: DeviceName, at: float, by: str) -> None:
        """Admit certificates that began after the revocation; never older ones.

        Raises NotFound when the device is not revoked, Unavailable.
        """
        entry = self._revoked.get(device)
        if entry is None or entry.restored:
            raise NotFound(f"{device[0]}/{device[1]} is not revoked.")
        fleet, name = device
        table = device_revocations
        statement = update(table).where(table.c.fleet == fleet, table.c.name == name)
        await self._change(
            lambda connection: connection.execute(statement.values(restored_at=at, restored_by=by))
        )

    async def _change(self, change: Callable[[Connection], object]) -> None:
        async with self._lock:
            async with self._database.write() as connection:
                await connection.run_sync(change)
            async with self._database.read() as connection:
                await connection.run_sync(self._read)

    def _read(self, connection: Connection) -> None:
        issued: dict[DeviceName, list[Issued]] = {}
        for row in connection.execute(select(devices).order_by(devices.c.issued_at)):
            entry = Issued(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
            issued.setdefault((entry.fleet, entry.name), []).append(entry)
        revoked = {
            (row.fleet, row.name): Revoked(row.revoked_at, row.restored_at is not None)
            for row in connection.execute(select(device_revocations))
        }
        certificates = frozenset(
            (row.issuer, row.serial) for row in connection.execute(select(certificate_revocations))
        )
        self._issued = {device: tuple(entries) for device, entries in issued.items()}
        self._revoked = revoked
        self._certificates = certificates
        self._revocations = Revocations(
            {device: entry.at if entry.restored else math.inf for device, entry in revoked.items()},
            certificates,
        )
        self.generation += 1
