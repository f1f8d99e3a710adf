"""`facade up` and `facade demo`: start things."""

from pathlib import Path
from typing import Annotated

import typer

from facade.app.unwanted import BY_ANY_SERVER, keep_out
from facade.cli.config import ConfigFile
from facade.cli.session import State, example, session_of


def add(app: typer.Typer) -> None:
    """Add the two commands."""
    app.command("up", epilog=example("facade up --name facade.example"))(up)
    app.command("demo", epilog=example("facade demo --once"))(demo)


def up(
    ctx: typer.Context,
    *,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="another name or address that devices reach it by"),
    ] = None,
    config: ConfigFile = None,
    state: State = None,
) -> None:
    """Run everything on this machine: devices' port, operator API, metrics.

    The first start makes certificates, keys, a database and an operator key in the state folder;
    later starts use them again. Prints one line when all ports answer; logs go to stderr.
    """
    session = session_of(ctx)
    if session.owns_process:
        keep_out(BY_ANY_SERVER)
    from facade.up.run import up as start

    code = start(
        session.state_dir, names=tuple(name or ()), config_file=config, environ=session.environ
    )
    raise typer.Exit(code)


def demo(
    ctx: typer.Context,
    *,
    once: Annotated[bool, typer.Option("--once", help="exit with a status when done")] = False,
    image: Annotated[
        str | None,
        typer.Option(metavar="HOST/REPO:TAG", help="a real image instead of the one made here"),
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="keep everything here")
    ] = None,
) -> None:
    """Show the whole job on this machine: connect, browse, import, pull, verify, refuse."""
    from facade.demo.script import run

    raise typer.Exit(run(once=once, image=image, state=state))
