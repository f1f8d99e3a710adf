"""The audit trail: who changed what, when, and what came of it.

Guarantees: rows are only ever added, in one order; their ids are never used again, so a row that
somebody deleted behind our back leaves a gap. Does not guarantee that the database file itself is
untouched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select

from facade.clock import Clock
from facade.control.database.engine import Database
from facade.control.database.paging import older
from facade.control.database.tables import audit as table


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row.

    Arguments:
        at: Unix seconds.
        action: like "connection.add".
        outcome: "ok", or "failed: " and a sentence.
    """

    id: int
    at: float
    actor: str
    action: str
    subject: str
    outcome: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class AuditTrail:
    """Writes and reads the trail."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(
        self,
        *,
        actor: str,
        action: str,
        subject: str,
        outcome: str,
        detail: Mapping[str, Any],
    ) -> None:
        """Add a row, dated now. `detail` is JSON and holds no secret. Raises Unavailable."""
        async with self._database.write() as connection:
            await connection.execute(
                insert(table).values(
                    at=self._clock.time(),
                    actor=actor,
                    action=action,
                    subject=subject,
                    outcome=outcome,
                    detail=dict(detail),
                )
            )

    async def list(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[Sequence[AuditRow], int]:
        """A page, newest first, and how many rows there are in all. Raises Unavailable.

        Arguments:
            action: the whole name, or its noun ("connection" for all "connection.…").
            before: an id; only older rows. Pages that go on from the last one's stay whole while
                rows are added, which those by `offset` do not.
        """
        conditions: list[ColumnElement[bool]] = []
        if actor is not None:
            conditions.append(table.c.actor == actor)
        if action is not None:
            noun = table.c.action.startswith(f"{action}.", autoescape=True)
            conditions.append((table.c.action == action) | noun)
        query = select(table).where(*conditions, *older(table, before)).order_by(table.c.id.desc())
        async with self._database.read() as connection:
            rows = (await connection.execute(query.limit(limit).offset(offset))).all()
            total = select(func.count()).select_from(table).where(*conditions)
            count = (await connection.execute(total)).scalar_one()
        return tuple(AuditRow(**row._mapping) for row in rows), count  # noqa: SLF001 - its public API
