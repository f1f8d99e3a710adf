"""`facade cache`: what the cache holds; check it, fill it, shrink it."""

from typing import Annotated

import typer

from facade.cli.artifact import print_warmed
from facade.cli.client import LONG_SECONDS
from facade.cli.output import clean, document, done, line, show, size
from facade.cli.progress import Progress
from facade.cli.session import AsJson, State, example, session_of
from facade.cli.usage import argument
from facade.target import parse_artifact_path


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(
        help="The cache of verified content.", no_args_is_help=True, rich_markup_mode=None
    )
    app.command("status", epilog=example("facade cache status"))(status)
    app.command("verify", epilog=example("facade cache verify"))(verify)
    app.command("warm", epilog=example("facade cache warm dev/app/v1.2"))(warm)
    app.command("prune", epilog=example("facade cache prune"))(prune)
    return app


def status(ctx: typer.Context, *, state: State = None, as_json: AsJson = False) -> None:
    """Show what the cache holds."""
    session = session_of(ctx)
    answer = session.api().get("/cache")
    values = {
        "objects": str(answer["objects"]),
        "size": size(answer["bytes"]),
        "limit": size(answer.get("max_bytes")),
        "in flight": str(answer["in_flight"]),
        "quarantined": str(answer["quarantined"]),
    }
    show(session, answer, values)


def verify(ctx: typer.Context, *, state: State = None, as_json: AsJson = False) -> None:
    """Hash everything in the cache again; what does not match is quarantined."""
    session = session_of(ctx)
    answer = session.api().post("/cache/verify", seconds=LONG_SECONDS)
    done(
        session,
        answer,
        f"{answer['checked']} objects checked, {answer['quarantined']} quarantined.",
    )
    if answer["quarantined"]:
        raise typer.Exit(1)


def warm(
    ctx: typer.Context,
    targets: Annotated[list[str], typer.Argument(metavar="FLEET/NAME/VERSION…")],
    *,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Fetch artifacts into the cache, verified."""
    session = session_of(ctx)
    paths = [argument(parse_artifact_path, target) for target in targets]
    body = {"targets": ["/".join(path) for path in paths]}
    with Progress(session, len(paths), "warming") as progress:
        answer = session.api().stream("/cache/warm", body, progress.event)
    answers = answer["items"]
    if session.as_json:
        document(session, answer)
    else:
        for each in answers:
            line(session, clean(each["target"]))
            print_warmed(session, each)
    if not answer["ok"]:
        raise typer.Exit(1)


def prune(ctx: typer.Context, *, state: State = None, as_json: AsJson = False) -> None:
    """Evict the least recently used down to the low watermark."""
    session = session_of(ctx)
    answer = session.api().post("/cache/prune", seconds=LONG_SECONDS)
    done(session, answer, f"{answer['objects']} objects removed, {size(answer['bytes'])}.")
