"""`facade config`: what is set, and every key that can be set."""

from pathlib import Path
from typing import Annotated

import typer

from facade.cli.output import document, line
from facade.cli.session import AsJson, State, example, session_of

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="F", help="TOML file (FACADE_CONFIG; else /etc/facade/facade.toml)"
    ),
]


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(help="The configuration.", no_args_is_help=True, rich_markup_mode=None)
    app.command("show", epilog=example("facade config show"))(show_)
    app.command("reference", epilog=example("facade config reference > facade.toml"))(reference_)
    return app


def show_(
    ctx: typer.Context, *, config: ConfigFile = None, state: State = None, as_json: AsJson = False
) -> None:
    """Show the settings that a server started here would use."""
    from facade.config.sources import load

    session = session_of(ctx)
    settings = load(config, session.environ).model_dump(mode="json")
    if session.as_json:
        document(session, settings)
        return
    for section, values in settings.items():
        for name, value in values.items():
            line(session, f"{section}.{name} = {'' if value is None else value}")


def reference_(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """Print every key with its default, unit and meaning, as a TOML file to start from."""
    from facade.config.reference import reference

    session = session_of(ctx)
    if session.as_json:
        document(session, {"toml": reference()})
    else:
        session.stdout.write(reference())
