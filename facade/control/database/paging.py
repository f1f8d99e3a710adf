"""Pages that go on where the last one ended, whatever was added meanwhile. Pure."""

from sqlalchemy import ColumnElement, Table


def older(table: Table, before: int | None) -> tuple[ColumnElement[bool], ...]:
    """The condition for rows of a table that grows by id; none without `before`.

    Arguments:
        before: the id of the last row that was seen.
    """
    return () if before is None else (table.c.id < before,)
