"""Statements as SQLite takes them, made once from our tables. Pure.

Guarantees: a text has its values by name (`:at`), as sqlite3 fills them in. For `Database.write_at_once` alone:
going through SQLAlchemy each time costs three times what SQLite itself takes for a row with its flush. For
columns of plain types only: nothing here turns JSON or the like into what is stored.
"""

from collections.abc import Sequence

from sqlalchemy import Delete, Insert, Update
from sqlalchemy.dialects.sqlite import dialect

_NAMED = dialect(paramstyle="named")


def text_of(statement: Insert | Update | Delete, columns: Sequence[str] | None = None) -> str:
    """The text of `statement`.

    Arguments:
        columns: whose values are given to it; None = none but what it names itself.
    """
    return str(statement.compile(dialect=_NAMED, column_keys=columns))
