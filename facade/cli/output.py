"""What commands print: one JSON document, tables on a terminal, plain lines in a pipe.

Guarantees: with `--json` nothing but one document reaches stdout; control characters in what a
registry or server said never reach a terminal; everything that is no result goes to stderr.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from facade.cli.session import Session

_KIB = 1024
_RED, _RESET = "\x1b[31m", "\x1b[0m"


def clean(value: Any) -> str:
    """A value as text that moves no cursor: lists by commas, None as '-'."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(clean, value)) or "-"
    return "".join(c if c.isprintable() else "�" for c in str(value))


def document(session: Session, body: Any) -> None:
    """Print the one JSON document."""
    json.dump(
        body, session.stdout, ensure_ascii=False, indent=2 if session.stdout.isatty() else None
    )
    session.stdout.write("\n")
    session.stdout.flush()


def line(session: Session, text: str) -> None:
    """One line of result on stdout."""
    session.stdout.write(f"{text}\n")
    session.stdout.flush()


def note(session: Session, text: str) -> None:
    """One line for the person, on stderr."""
    session.stderr.write(f"{text}\n")
    session.stderr.flush()


def table(
    session: Session, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = ""
) -> None:
    """A table on a terminal; tab-separated lines without a header in a pipe.

    Arguments:
        empty: what to say on stderr when there are no rows.
    """
    cells = [[clean(value) for value in row] for row in rows]
    if not cells and empty:
        note(session, empty)
        return
    if not session.stdout.isatty():
        for row in cells:
            line(session, "\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    Console(file=session.stdout).print(grid)


def details(session: Session, values: Mapping[str, Any]) -> None:
    """One thing: `name: value` lines, absent values left out; a name in CAPITALS is an alarm."""
    width = max((len(name) for name in values), default=0) + 1
    for name, value in values.items():
        if value not in (None, "", [], {}):
            text = f"{name + ':':<{width}} {clean(value)}"
            alarm = name.isupper() and session.stdout.isatty()
            line(session, f"{_RED}{text}{_RESET}" if alarm else text)


def show(session: Session, body: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """The body as JSON, or the values for a person; says when a change is pending."""
    if session.as_json:
        document(session, body)
    else:
        details(session, values)
    pending(session, body)


def done(session: Session, body: Mapping[str, Any], sentence: str) -> None:
    """The body as JSON, or one sentence; says when a change is pending."""
    if session.as_json:
        document(session, body)
    else:
        line(session, clean(sentence))
    pending(session, body)


def pending(session: Session, body: Mapping[str, Any]) -> None:
    """Say on stderr that the serving side does not use a change yet."""
    if body.get("pending"):
        note(session, "facade: the serving side has not taken this up yet; it will within seconds.")


def size(count: int | None) -> str | None:
    """Bytes for people: 1.5 MiB."""
    if count is None:
        return None
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < _KIB:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIB
    return f"{value:.1f} TiB"
