"""The deny list and the record of issued certificates, in the control database.

Guarantees: `revocations()` is an immutable value, replaced in one assignment; its `generation` counts up
with every change. A revocation is in it before anything is written: what cannot be written counts all the
same, is told of, and is written as soon as the database takes it. Everything else is in it once it is
committed. A revoked device stays out, whatever certificate it shows, until it is restored; restoring never
re-admits a certificate that began before the revocation. Does not guarantee that another process sees a
change (one process owns the list), or that a revocation which could not be written survives the end of this
process. Certificates begin on whole seconds, so one issued within the second of a revocation counts as
issued before it.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection, delete, insert, select, update

from facade.clock import Clock
from facade.control.database.engine import Database
from facade.control.database.tables import (
    certificate_revocations,
    device_revocations,
    devices,
)
from facade.errors import FacadeError, NotFound, Unavailable
from facade.wings import Revocations

log = structlog.get_logger(__name__)

WRITE_AGAIN_SECONDS = 15.0

DeviceName = tuple[str, str]
"""(fleet, name)."""
CertificateName = tuple[str, str]
"""(issuer, serial)."""


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


@dataclass(frozen=True, slots=True)
class _Written:
    """What the database holds."""

    issued: Mapping[DeviceName, tuple[Issued, ...]] = field(default_factory=dict)
    revoked: Mapping[DeviceName, Revoked] = field(default_factory=dict)
    certificates: frozenset[CertificateName] = frozenset()


@dataclass(frozen=True, slots=True)
class _By:
    """When something was revoked (Unix seconds), and by whom."""

    at: float
    by: str


class DenyList:
    """Issued certificates and what was revoked. `load` comes first."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written = _Written()
        self._held_devices: dict[DeviceName, _By] = {}
        self._held_certificates: dict[CertificateName, _By] = {}
        self._revoked: Mapping[DeviceName, Revoked] = {}
        self._certificates: frozenset[CertificateName] = frozenset()
        self._revocations = Revocations()
        self._lock = asyncio.Lock()  # commits and their snapshots come in the same order
        self.generation = 0
        """Counts up with every change."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after it."""

    async def load(self) -> None:
        """Read everything. Raises Unavailable."""
        async with self._lock, self._database.read() as connection:
            self._written = await connection.run_sync(_read)
            self._publish()

    def revocations(self) -> Revocations:
        """What the serving wing refuses; never blocks."""
        return self._revocations

    @property
    def unwritten(self) -> int:
        """How many revocations count that could not be written yet."""
        return len(self._held_devices) + len(self._held_certificates)

    def issued(self, device: DeviceName) -> tuple[Issued, ...]:
        """Its certificates, oldest first."""
        return self._written.issued.get(device, ())

    def revoked(self, device: DeviceName) -> Revoked | None:
        """Its entry, if it was ever revoked."""
        return self._revoked.get(device)

    def is_revoked(self, issuer: str, serial: str) -> bool:
        """Whether that one certificate was revoked by its serial."""
        return (issuer, serial) in self._certificates

    def names(self) -> list[DeviceName]:
        """Every device that was issued a certificate or revoked here, sorted."""
        return sorted({*self._written.issued, *self._revoked})

    async def record(self, issued: Issued) -> None:
        """Remember an issued certificate. Raises Conflict, Unavailable."""
        values = {field: getattr(issued, field) for field in issued.__slots__}
        await self._change(lambda connection: connection.execute(insert(devices).values(values)))

    async def revoke_device(self, device: DeviceName, at: float, by: str) -> None:
        """Refuse all certificates of `device`, those known here whatever the clock says today.

        Raises Unavailable when that could not be written; it is refused all the same.
        """
        # A clock set back must not make an old certificate count as newer than its revocation.
        before = self.revoked(device)
        known = [issued.not_before for issued in self.issued(device)]
        at = max(at, *known, before.at if before else at)
        self._held_devices[device] = _By(at, by)
        await self._write_held(f"{device[0]}/{device[1]}")

    async def revoke_certificates(
        self, certificates: Sequence[CertificateName], at: float, by: str
    ) -> None:
        """Refuse single certificates.

        Raises Unavailable when that could not be written; they are refused all the same.
        """
        fresh = [pair for pair in certificates if pair not in self._written.certificates]
        for pair in fresh:
            self._held_certificates.setdefault(pair, _By(at, by))
        if fresh:
            await self._write_held(f"The certificate {fresh[0][1]}")

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

    async def write_behind(self, clock: Clock) -> None:
        """For ever: write what could not be written, as soon as the database takes it."""
        while True:
            await clock.sleep(WRITE_AGAIN_SECONDS)
            if not self.unwritten:
                continue
            try:
                await self._change()
            except FacadeError as error:
                log.warning("revocations_unwritten", count=self.unwritten, error=error.message)

    async def _write_held(self, whom: str) -> None:
        self._publish()
        try:
            await self._change()
        except Unavailable as error:
            log.warning("revocations_unwritten", count=self.unwritten, error=error.message)
            raise Unavailable(
                f"{whom} is refused from now on, but that is not written down yet: {error.message} "
                f"Make room or repair it, and leave the facade running: it tries again every "
                f"{WRITE_AGAIN_SECONDS:.0f} s, and a restart before that would forget it.",
                reason=error.reason,
            ) from error

    async def _change(self, change: Callable[[Connection], object] | None = None) -> None:
        """Commit `change` and what is held, and take up what the database holds then.

        It is read before the commit: what was committed and could not be read would not count.
        """
        async with self._lock:
            held = dict(self._held_devices), dict(self._held_certificates)

            def apply(connection: Connection) -> _Written:
                _write_devices(connection, held[0])
                _write_certificates(connection, held[1])
                if change is not None:
                    change(connection)
                return _read(connection)

            async with self._database.write() as connection:
                written = await connection.run_sync(apply)
            self._written = written
            _take_out(self._held_devices, held[0])
            _take_out(self._held_certificates, held[1])
            self._publish()

    def _publish(self) -> None:
        """What is written and what is held, in one value."""
        held = {device: Revoked(by.at, restored=False) for device, by in self._held_devices.items()}
        self._revoked = {**self._written.revoked, **held}
        self._certificates = self._written.certificates | self._held_certificates.keys()
        self._revocations = Revocations(
            {
                device: entry.at if entry.restored else math.inf
                for device, entry in self._revoked.items()
            },
            self._certificates,
        )
        self.generation += 1
        self.on_change()


def _take_out(held: dict[tuple[str, str], _By], written: Mapping[tuple[str, str], _By]) -> None:
    """Leave what came, or was revoked anew, since."""
    for name, by in written.items():
        if held.get(name) == by:
            del held[name]


def _write_devices(connection: Connection, held: Mapping[DeviceName, _By]) -> None:
    table = device_revocations
    for (fleet, name), by in held.items():
        connection.execute(delete(table).where(table.c.fleet == fleet, table.c.name == name))
        row = {"fleet": fleet, "name": name, "revoked_at": by.at, "revoked_by": by.by}
        connection.execute(insert(table).values(row))


def _write_certificates(connection: Connection, held: Mapping[CertificateName, _By]) -> None:
    # A commit that failed in its last step may be there all the same.
    there = _certificates(connection) if held else frozenset()
    rows = [
        {"issuer": issuer, "serial": serial, "revoked_at": by.at, "revoked_by": by.by}
        for (issuer, serial), by in held.items()
        if (issuer, serial) not in there
    ]
    if rows:
        connection.execute(insert(certificate_revocations), rows)


def _read(connection: Connection) -> _Written:
    issued: dict[DeviceName, list[Issued]] = {}
    for row in connection.execute(select(devices).order_by(devices.c.issued_at)):
        entry = Issued(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
        issued.setdefault((entry.fleet, entry.name), []).append(entry)
    revoked = {
        (row.fleet, row.name): Revoked(row.revoked_at, row.restored_at is not None)
        for row in connection.execute(select(device_revocations))
    }
    return _Written(
        {device: tuple(entries) for device, entries in issued.items()},
        revoked,
        _certificates(connection),
    )


def _certificates(connection: Connection) -> frozenset[CertificateName]:
    rows: Iterable[tuple[str, str]] = (
        (row.issuer, row.serial) for row in connection.execute(select(certificate_revocations))
    )
    return frozenset(rows)
