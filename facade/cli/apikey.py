"""`facade apikey`: make, list and revoke the keys of the operator API."""

from typing import Annotated

import typer

from facade.cli.client import segment
from facade.cli.output import document, done, line, note, table
from facade.cli.session import AsJson, State, Yes, example, session_of


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(help="Keys of the operator API.", no_args_is_help=True, rich_markup_mode=None)
    app.command(
        "create",
        epilog=example("facade apikey create ci --permission artifacts.write --fleet dev"),
    )(create)
    app.command("list", epilog=example("facade apikey list"))(list_)
    app.command("revoke", epilog=example("facade apikey revoke 3f9c0a12"))(revoke)
    return app


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="who or what will hold it")],
    *,
    permission: Annotated[
        list[str], typer.Option(metavar="P", help="like artifacts.read; repeat for more")
    ],
    fleet: Annotated[
        list[str] | None, typer.Option(metavar="F", help="only these fleets; default: all")
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once, on stdout."""
    session = session_of(ctx)
    answer = session.api().post(
        "/keys", {"name": name, "permissions": permission, "fleets": fleet or None}
    )
    if session.as_json:
        document(session, answer)
        return
    line(session, answer["key"])
    note(session, f"facade: this is key {answer['id']}; it is not shown again.")


def list_(ctx: typer.Context, *, state: State = None, as_json: AsJson = False) -> None:
    """List the keys, without their values."""
    session = session_of(ctx)
    answer = session.api().everything("/keys")
    if session.as_json:
        document(session, answer)
        return
    table(
        session,
        ("ID", "NAME", "PERMISSIONS", "FLEETS", "CREATED", "LAST USED"),
        (
            (
                item["id"],
                item["name"],
                item["permissions"],
                item.get("fleets", "all"),
                item["created_at"],
                item.get("last_used"),
            )
            for item in answer["items"]
        ),
    )


def revoke(
    ctx: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="from `facade apikey list`")],
    *,
    state: State = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Revoke a key."""
    session = session_of(ctx)
    session.confirm(f"Revoke the key {key_id}?")
    answer = session.api().delete(f"/keys/{segment(key_id)}")
    done(session, answer, f"Revoked the key {answer['id']}.")
