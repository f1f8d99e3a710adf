"""`facade artifact`: import tags as signed artifacts, look at them, check them, withdraw them.

Guarantees: several repositories are one API call each; a call that fails as a whole counts as failed
for each of its tags, so that one bad registry never hides the others' results.
"""

from typing import Annotated, Any

import typer

from facade.cli.client import LONG_SECONDS, ApiError, segment
from facade.cli.names import Image, parse_image
from facade.cli.output import clean, document, done, line, note, pending, show, size, table
from facade.cli.progress import Progress
from facade.cli.session import AsJson, Session, State, Yes, example, session_of
from facade.cli.usage import argument
from facade.target import parse_artifact_path

Target = Annotated[str, typer.Argument(metavar="FLEET/NAME/VERSION", help="like dev/app/v1.2")]


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(
        help="Freeze tags as signed artifacts; list, check, withdraw them.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.command(
        "import", epilog=example("facade artifact import ghcr.io/org/app:v1.2 --fleet dev")
    )(import_)
    app.command("list", epilog=example("facade artifact list --fleet dev"))(list_)
    app.command("show", epilog=example("facade artifact show dev/app/v1.2"))(show_)
    app.command("verify", epilog=example("facade artifact verify dev/app/v1.2"))(verify)
    app.command("withdraw", epilog=example("facade artifact withdraw dev/app/v1.2"))(withdraw)
    app.command("warm", epilog=example("facade artifact warm dev/app/v1.2"))(warm)
    return app


def import_(
    ctx: typer.Context,
    images: Annotated[
        list[str],
        typer.Argument(metavar="HOST/REPO:TAG…", help="or HOST/REPO@sha256:…; several at once"),
    ],
    *,
    fleet: Annotated[str, typer.Option(metavar="F", help="the fleet that may pull it")],
    name: Annotated[
        str | None, typer.Option(metavar="N", help="default: the repository's last component")
    ] = None,
    version: Annotated[
        str | None, typer.Option(metavar="V", help="default: the tag (one tag only)")
    ] = None,
    platform: Annotated[
        list[str] | None,
        typer.Option(metavar="P", help="only these, like linux/arm64; default: all"),
    ] = None,
    with_referrers: Annotated[
        bool, typer.Option("--with-referrers", help="signatures and SBOMs too")
    ] = False,
    warm_cache: Annotated[
        bool, typer.Option("--warm", help="fetch everything into the cache at once")
    ] = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Resolve each tag to its digest, check the whole image, and sign it for a fleet.

    Each tag gets its own outcome: imported, unchanged, moved (signed beside the old one), or
    failed. Run it again to finish an interrupted batch.
    """
    session = session_of(ctx)
    batches: dict[tuple[str, str], list[str]] = {}
    for image in (argument(parse_image, text) for text in images):
        batches.setdefault((image.host, image.repository), []).append(image.reference)
    options: dict[str, Any] = {
        "fleet": fleet,
        "name": name,
        "version": version,
        "platforms": platform or None,
        "with_referrers": with_referrers,
        "warm": warm_cache,
    }
    body = _import(session, batches, {k: v for k, v in options.items() if v is not None})
    if session.as_json:
        document(session, body)
    else:
        table(
            session,
            ("IMAGE", "STATUS", "TARGET", "DIGEST"),
            (_row(result) for result in body["results"]),
        )
    pending(session, body)
    if cold := sum(result.get("warmed") is False for result in body["results"]):
        note(
            session,
            f"facade: {cold} of {len(body['results'])} are signed but not wholly in the cache; "
            "try: facade artifact warm TARGET",
        )
    failed = sum(result["status"] == "failed" for result in body["results"])
    if failed:
        note(session, f"facade: {failed} of {len(body['results'])} failed.")
        raise typer.Exit(1)


def _import(
    session: Session, batches: dict[tuple[str, str], list[str]], options: dict[str, Any]
) -> dict[str, Any]:
    api = session.api()
    joined: dict[str, Any] = {"results": []}
    with Progress(session, sum(map(len, batches.values()))) as progress:
        for (host, repository), tags in batches.items():
            request = {"host": host, "repository": repository, "tags": tags, **options}
            try:
                answer = api.stream("/imports", request, progress.event)
            except ApiError as error:
                if len(batches) == 1:
                    raise
                answer = _all_failed(host, repository, tags, error)
            progress.finished(len(tags))
            joined["results"] += answer["results"]
            if answer.get("pending"):
                joined["pending"] = True
    return joined


def _all_failed(host: str, repository: str, tags: list[str], error: ApiError) -> dict[str, Any]:
    return {
        "results": [
            {
                "host": host,
                "repository": repository,
                "tag": tag,
                "status": "failed",
                "error": error.message,
            }
            for tag in tags
        ]
    }


def _row(result: dict[str, Any]) -> tuple[Any, ...]:
    image = str(Image(result["host"], result["repository"], result["tag"]))
    return (
        image,
        result["status"],
        result.get("target"),
        result.get("error") or result.get("digest"),
    )


def list_(
    ctx: typer.Context,
    *,
    fleet: Annotated[str | None, typer.Option(metavar="F", help="only this fleet's")] = None,
    name: Annotated[str | None, typer.Option(metavar="N", help="only of this name")] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """List the signed artifacts."""
    session = session_of(ctx)
    answer = session.api().everything("/artifacts", {"fleet": fleet, "name": name})
    if session.as_json:
        document(session, answer)
        return
    table(
        session,
        ("TARGET", "FROM", "DIGEST", "IMPORTED"),
        (
            (
                item["target"],
                f"{item['host']}/{item['repository']}:{item.get('reference', '')}".rstrip(":"),
                item["digest"],
                item.get("created_at"),
            )
            for item in answer["items"]
        ),
        empty="No artifacts. Import one: facade artifact import HOST/REPO:TAG --fleet F",
    )


def show_(
    ctx: typer.Context, target: Target, *, state: State = None, as_json: AsJson = False
) -> None:
    """Show an artifact: digest, platforms, sizes, who and when, where from."""
    session = session_of(ctx)
    answer = session.api().get(_path(target))
    values = {
        "target": answer["target"],
        "digest": answer["digest"],
        "media type": answer["media_type"],
        "from": f"{answer['host']}/{answer['repository']}",
        "tag at import": answer.get("reference"),
        "platforms": answer.get("platforms"),
        "size": size(answer.get("total_bytes")),
        "referrers": answer.get("referrers"),
        "imported by": answer.get("created_by"),
        "imported at": answer.get("created_at"),
        "pulled": answer.get("pulled"),
        "last pulled": answer.get("last_pulled"),
    }
    show(session, answer, values)


def verify(
    ctx: typer.Context, target: Target, *, state: State = None, as_json: AsJson = False
) -> None:
    """Walk an artifact again: is all of it still upstream, and does it still match?"""
    session = session_of(ctx)
    answer = session.api().post(f"{_path(target)}/verify", seconds=LONG_SECONDS)
    if session.as_json:
        document(session, answer)
    else:
        for problem in answer["problems"]:
            line(session, clean(f"{problem['digest']}: {problem['problem']}"))
        verdict = "all there and unchanged" if answer["ok"] else "NOT whole"
        cached = (
            f"; {answer['cached']} of {answer['blobs']} blobs cached" if "cached" in answer else ""
        )
        line(
            session,
            f"{clean(answer['target'])}: {verdict} ({answer['checked']} objects checked{cached})",
        )
    if not answer["ok"]:
        raise typer.Exit(1)


def withdraw(
    ctx: typer.Context,
    target: Target,
    *,
    state: State = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Stop serving an artifact; running transfers of it are cut."""
    session = session_of(ctx)
    path = _path(target)
    session.confirm(f"Withdraw {target}? Devices will be refused it.")
    answer = session.api().delete(path)
    done(session, answer, f"Withdrew {answer['target']}.")


def warm(
    ctx: typer.Context, target: Target, *, state: State = None, as_json: AsJson = False
) -> None:
    """Fetch an artifact's blobs into the cache, verified."""
    session = session_of(ctx)
    path = _path(target)
    with Progress(session, 1, "warming") as progress:
        answer = session.api().stream(f"{path}/warm", None, progress.event)
    if session.as_json:
        document(session, answer)
    else:
        print_warmed(session, answer)
    if not answer["ok"]:
        raise typer.Exit(1)


def print_warmed(session: Session, answer: dict[str, Any]) -> None:
    """One row per blob."""
    table(
        session,
        ("DIGEST", "SIZE", "CACHED", "ERROR"),
        (
            (item["digest"], size(item["bytes"]), item["cached"], item.get("error"))
            for item in answer["results"]
        ),
    )


def _path(target: str) -> str:
    return "/artifacts/" + "/".join(map(segment, argument(parse_artifact_path, target)))
