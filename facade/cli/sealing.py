"""`facade sealing`: the key that seals secrets at rest."""

import typer

from facade.cli.client import LONG_SECONDS
from facade.cli.output import done
from facade.cli.session import AsJson, State, example, session_of


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(
        help="The key that seals secrets at rest.", no_args_is_help=True, rich_markup_mode=None
    )
    app.command("rotate", epilog=example("facade sealing rotate"))(rotate)
    app.callback()(_noun)
    return app


def _noun() -> None:
    """The key that seals secrets at rest."""


def rotate(ctx: typer.Context, *, state: State = None, as_json: AsJson = False) -> None:
    """Change the key: every secret is sealed again while pulls go on, then the old key is dropped.

    A backup of the database that was made before opens with the key file of then, and no other.
    """
    session = session_of(ctx)
    answer = session.api().post("/sealing/rotate", seconds=LONG_SECONDS)
    count = answer["resealed"]
    done(
        session,
        answer,
        f"Sealed {count} connection{'' if count == 1 else 's'} again with key {answer['key_id']}; "
        f"{', '.join(answer['retired'])} opens nothing any more.",
    )
