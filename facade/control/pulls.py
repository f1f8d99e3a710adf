"""What devices pulled and what did not match: kept for operators to look up.

Guarantees: bounded: beyond `keep` rows the oldest go. Rows are written in batches by `control.port`,
together with what else it writes, never on the path of a pull; what was dropped on the way is counted there.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, bindparam, delete, func, insert, select

from facade.control.database.engine import Database
from facade.control.database.paging import older
from facade.control.database.tables import integrity_failures, pulls
from facade.control.database.texts import text_of
from facade.oci.digest import Digest
from facade.reasons import Reason
from facade.wings import IntegrityFailed, Pulled

KEEP_PULLS = 1_000_000
KEEP_FAILURES = 10_000


def _add(table: Table) -> str:
    return text_of(insert(table), [column.name for column in table.c if column.name != "id"])


def _trim(table: Table) -> str:
    newest = select(func.max(table.c.id)).scalar_subquery()
    return text_of(delete(table).where(table.c.id <= newest - bindparam("keep")))


_ADD_PULLS, _TRIM_PULLS = _add(pulls), _trim(pulls)
_ADD_FAILURES, _TRIM_FAILURES = _add(integrity_failures), _trim(integrity_failures)


@dataclass(frozen=True, slots=True)
class PullCount:
    """How often a digest was pulled, and when last (Unix seconds)."""

    count: int
    last: float | None


@dataclass(frozen=True, slots=True)
class PullRow:
    """A pull as it is kept; ids grow, and are never used again."""

    id: int
    pull: Pulled


class PullRecords:
    """Writes and reads the records.

    Arguments:
        keep: rows of pulls that are kept.
    """

    def __init__(self, database: Database, *, keep: int = KEEP_PULLS) -> None:
        self._database = database
        self._keep = keep

    async def add(
        self,
        events: Sequence[Pulled],
        failures: Sequence[IntegrityFailed],
        *,
        also: Callable[[sqlite3.Connection], None] = lambda _: None,
    ) -> None:
        """Write a batch. Raises Unavailable, and has written nothing then.

        Arguments:
            also: writes what else is to be written, in the same transaction.
        """

        def write(connection: sqlite3.Connection) -> None:
            if events:
                connection.executemany(_ADD_PULLS, [_row(event) for event in events])
                connection.execute(_TRIM_PULLS, {"keep": self._keep})
            if failures:
                rows = [
                    {
                        "at": failure.at,
                        "host": failure.host,
                        "repository": failure.repository,
                        "digest": failure.digest,
                        "detail": failure.detail,
                    }
                    for failure in failures
                ]
                connection.executemany(_ADD_FAILURES, rows)
                connection.execute(_TRIM_FAILURES, {"keep": KEEP_FAILURES})
            also(connection)

        await self._database.write_at_once(write)

    async def list(
        self,
        *,
        fleet: str | None = None,
        device: str | None = None,
        before: int | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[PullRow], int]:
        """A page, newest first, and how many there are in all. Raises Unavailable.

        Arguments:
            device: its name, or FLEET/NAME.
            before: an id; only older rows (as `AuditTrail.list`).
        """
        conditions: list[ColumnElement[bool]] = []
        if fleet is not None:
            conditions.append(pulls.c.device.startswith(f"{fleet}/", autoescape=True))
        if device is not None:
            if "/" in device:
                conditions.append(pulls.c.device == device)
            else:
                conditions.append(pulls.c.device.endswith(f"/{device}", autoescape=True))
        query = select(pulls).where(*conditions, *older(pulls, before)).order_by(pulls.c.id.desc())
        async with self._database.read() as connection:
            rows = (await connection.execute(query.limit(limit).offset(offset))).all()
            total = select(func.count()).select_from(pulls).where(*conditions)
            count = (await connection.execute(total)).scalar_one()
        return tuple(PullRow(row.id, _pulled(row)) for row in rows), count

    async def count(self, fleet: str, digest: Digest) -> PullCount:
        """How often devices of `fleet` were given the manifest `digest`. Raises Unavailable."""
        query = select(func.count(), func.max(pulls.c.at)).where(
            pulls.c.digest == str(digest),
            pulls.c.device.startswith(f"{fleet}/", autoescape=True),
            pulls.c.role == "manifest",
            pulls.c.reason.is_(None),
        )
        async with self._database.read() as connection:
            count, last = (await connection.execute(query)).one()
        return PullCount(count, last)

    async def failures(self, *, limit: int = 50) -> Sequence[IntegrityFailed]:
        """What did not match, newest first. Raises Unavailable."""
        query = select(integrity_failures).order_by(integrity_failures.c.id.desc()).limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return tuple(
            IntegrityFailed(row.at, row.host, row.repository, row.digest, row.detail)
            for row in rows
        )


def _row(event: Pulled) -> dict[str, Any]:
    return {
        "at": event.at,
        "device": event.device,
        "host": event.host,
        "repository": event.repository,
        "digest": event.digest,
        "role": event.role,
        "outcome": event.outcome,
        "reason": None if event.reason is None else str(event.reason),
        "bytes_sent": event.bytes_sent,
        "cache": event.cache,
    }


def _pulled(row: Row[Any]) -> Pulled:
    return Pulled(
        at=row.at,
        device=row.device,
        host=row.host,
        repository=row.repository,
        digest=row.digest,
        role=row.role,
        outcome=row.outcome,
        reason=None if row.reason is None else Reason(row.reason),
        bytes_sent=row.bytes_sent,
        cache=row.cache,
    )
