"""`facade fleet`: add fleets and list them."""

from typing import Annotated

import typer

from facade.cli.output import document, done, table
from facade.cli.session import AsJson, State, example, session_of


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(help="Add fleets and list them.", no_args_is_help=True, rich_markup_mode=None)
    app.command("add", epilog=example("facade fleet add kiosks"))(add)
    app.command("list", epilog=example("facade fleet list"))(list_)
    return app


def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="F", help="like kiosks")],
    *,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Add a fleet. Where the targets key is kept offline, the answer names the command to run there."""
    session = session_of(ctx)
    answer = session.api().post("/fleets", {"name": name})
    done(session, answer, f"Added the fleet {answer['name']}.")


def list_(ctx: typer.Context, *, state: State = None, as_json: AsJson = False) -> None:
    """List the fleets with their artifacts' count."""
    session = session_of(ctx)
    answer = session.api().everything("/fleets")
    if session.as_json:
        document(session, answer)
        return
    table(
        session,
        ("FLEET", "ARTIFACTS", "VERSION", "EXPIRES"),
        (
            (item["name"], item["artifacts"], item.get("version"), item.get("expires"))
            for item in answer["items"]
        ),
        empty="No fleets. Add one: facade fleet add F",
    )
