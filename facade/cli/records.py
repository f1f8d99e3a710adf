"""`facade audit` and `facade pulls`: who changed what, and which device pulled what."""

from typing import Annotated, Any

import typer

from facade.cli.output import document, size, table
from facade.cli.session import AsJson, Session, State, example, session_of

DEFAULT_ROWS = 50
MAX_ROWS = 200

Limit = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        max=MAX_ROWS,
        help=f"how many, newest first (default {DEFAULT_ROWS}; with --json all)",
    ),
]


def add(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command("audit", epilog=example("facade audit --limit 20"))(audit)
    app.command("pulls", epilog=example("facade pulls --fleet dev"))(pulls)


def audit(
    ctx: typer.Context,
    *,
    limit: Limit = None,
    actor: Annotated[str | None, typer.Option(help="only by this key's name")] = None,
    action: Annotated[str | None, typer.Option(help="only this, like connection.add")] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, when, and with which outcome."""
    session = session_of(ctx)
    answer = _rows(session, "/audit", {"actor": actor, "action": action}, limit)
    if session.as_json:
        document(session, answer)
        return
    table(
        session,
        ("AT", "WHO", "WHAT", "SUBJECT", "OUTCOME"),
        (
            (item["at"], item["actor"], item["action"], item["subject"], _outcome(item))
            for item in answer["items"]
        ),
        empty="Nothing was changed yet.",
    )


def pulls(
    ctx: typer.Context,
    *,
    limit: Limit = None,
    fleet: Annotated[str | None, typer.Option(metavar="F", help="only this fleet's")] = None,
    device: Annotated[
        str | None, typer.Option(metavar="FLEET/NAME", help="only this device's")
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show what devices pulled and were refused, newest first."""
    session = session_of(ctx)
    answer = _rows(session, "/pulls", {"fleet": fleet, "device": device}, limit)
    if session.as_json:
        document(session, answer)
        return
    table(
        session,
        ("AT", "DEVICE", "FROM", "DIGEST", "ROLE", "OUTCOME", "REASON", "SENT", "CACHE"),
        (
            (
                item["at"],
                item["device"],
                f"{item['host']}/{item['repository']}",
                item["digest"],
                item["role"],
                item["outcome"],
                item.get("reason"),
                size(item["bytes_sent"]),
                item.get("cache"),
            )
            for item in answer["items"]
        ),
        empty="No device pulled anything yet.",
    )


def _outcome(item: dict[str, Any]) -> str:
    detail, outcome = item["detail"], str(item["outcome"])
    if detail.get("error"):
        return f"{outcome}: {detail['error']}"
    results = ", ".join(f"{count} {status}" for status, count in detail.get("results", {}).items())
    return f"{outcome}: {results}" if results else outcome


def _rows(
    session: Session, path: str, query: dict[str, str | None], limit: int | None
) -> dict[str, Any]:
    api = session.api()
    if session.as_json and limit is None:
        return api.records(path, query)
    page = api.get(path, {**query, "limit": limit or DEFAULT_ROWS})
    return {"items": page["items"], "total": page["total"]}
