"""`facade registry`: connect registries, look at them, try them, remove them.

Guarantees: secrets come from standard input, a prompt, or a file that is read here; they are in no
argument, no output and no error.
"""

from typing import Annotated, Any

import typer

from facade.cli.client import segment
from facade.cli.names import parse_repository
from facade.cli.output import clean, document, done, note, show, table
from facade.cli.registry_options import (
    Anonymous,
    AuthHost,
    AwsAccessKeyId,
    AwsExternalId,
    AwsRegion,
    AwsRoleArn,
    AwsSecretStdin,
    CaFile,
    Credentials,
    GoogleKeyFile,
    Insecure,
    PasswordStdin,
    Proxy,
    Username,
    settings_body,
)
from facade.cli.session import AsJson, State, Yes, example, session_of
from facade.cli.usage import argument

Host = Annotated[str, typer.Argument(metavar="HOST", help="like ghcr.io, or a pasted URL")]


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(
        help="Connect registries and look into them.", no_args_is_help=True, rich_markup_mode=None
    )
    app.command(
        "add", epilog=example("facade registry add ghcr.io --username me --password-stdin < token")
    )(add)
    app.command("list", epilog=example("facade registry list"))(list_)
    app.command("show", epilog=example("facade registry show ghcr.io"))(show_)
    app.command("test", epilog=example("facade registry test ghcr.io --repository org/app"))(try_)
    app.command(
        "rotate", epilog=example("facade registry rotate ghcr.io --password-stdin < token")
    )(rotate)
    app.command("remove", epilog=example("facade registry remove ghcr.io"))(remove)
    app.command("tags", epilog=example("facade registry tags ghcr.io/org/app --match 'v1.*'"))(tags)
    return app


def add(
    ctx: typer.Context,
    host: Host,
    *,
    username: Username = None,
    password_stdin: PasswordStdin = False,
    anonymous: Anonymous = False,
    google_key_file: GoogleKeyFile = None,
    aws_role_arn: AwsRoleArn = None,
    aws_region: AwsRegion = None,
    aws_external_id: AwsExternalId = None,
    aws_access_key_id: AwsAccessKeyId = None,
    aws_secret_stdin: AwsSecretStdin = False,
    insecure: Insecure = False,
    ca_file: CaFile = None,
    auth_host: AuthHost = None,
    proxy: Proxy = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Connect a registry. Its secret is sealed and never shown again."""
    session = session_of(ctx)
    credentials = Credentials(
        username,
        password_stdin,
        google_key_file,
        aws_role_arn,
        aws_region,
        aws_external_id,
        aws_access_key_id,
        aws_secret_stdin,
        anonymous=anonymous,
    )
    body: dict[str, Any] = {
        "host": host,
        **credentials.body(session),
        "settings": settings_body(
            insecure=insecure, ca_file=ca_file, auth_hosts=auth_host, proxy=proxy
        ),
    }
    answer = session.api().post("/connections", body)
    done(
        session,
        answer,
        f"Connected {answer['host']}. Try it: facade registry test {answer['host']}",
    )


def list_(ctx: typer.Context, *, state: State = None, as_json: AsJson = False) -> None:
    """List the connected registries."""
    session = session_of(ctx)
    answer = session.api().everything("/connections")
    if session.as_json:
        document(session, answer)
        return
    table(
        session,
        ("HOST", "USERNAME", "PROVIDER"),
        ((item["host"], item.get("username"), item["provider"]) for item in answer["items"]),
        empty="No registry is connected. Connect one: facade registry add HOST …",
    )


def show_(ctx: typer.Context, host: Host, *, state: State = None, as_json: AsJson = False) -> None:
    """Show a connection: who connected it, how, and whether its last use worked."""
    session = session_of(ctx)
    answer = session.api().get(f"/connections/{segment(host)}")
    settings = answer.get("settings", {})
    values = {
        "host": answer["host"],
        "provider": answer["provider"],
        "username": answer.get("username"),
        "INSECURE": "plain http, no encryption" if settings.get("insecure") else None,
        "own CA": "yes" if settings.get("ca_pem") else None,
        "auth hosts": settings.get("auth_hosts"),
        "proxy": settings.get("proxy"),
        "connected by": answer.get("created_by"),
        "connected at": answer.get("created_at"),
        "last worked": answer.get("last_ok") or "never used",
        "last error": answer.get("last_error"),
        "note": answer.get("note"),
    }
    show(session, answer, values)


def try_(
    ctx: typer.Context,
    host: Host,
    *,
    repository: Annotated[
        str | None, typer.Option(metavar="R", help="also try to read this repository")
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Try a connection now: does it work, and what may it read?"""
    session = session_of(ctx)
    answer = session.api().post(
        f"/connections/{segment(host)}/test", {"repository": repository} if repository else {}
    )
    done(session, answer, answer["message"])
    if not answer["ok"]:
        raise typer.Exit(1)


def rotate(
    ctx: typer.Context,
    host: Host,
    *,
    username: Username = None,
    password_stdin: PasswordStdin = False,
    google_key_file: GoogleKeyFile = None,
    aws_role_arn: AwsRoleArn = None,
    aws_region: AwsRegion = None,
    aws_external_id: AwsExternalId = None,
    aws_access_key_id: AwsAccessKeyId = None,
    aws_secret_stdin: AwsSecretStdin = False,
    insecure: Insecure = False,
    ca_file: CaFile = None,
    auth_host: AuthHost = None,
    proxy: Proxy = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Replace a connection's credentials; its cached tokens die with the old ones.

    Given one of --insecure, --ca-file, --auth-host and --proxy, its settings are replaced too, all
    of them.
    """
    session = session_of(ctx)
    credentials = Credentials(
        username,
        password_stdin,
        google_key_file,
        aws_role_arn,
        aws_region,
        aws_external_id,
        aws_access_key_id,
        aws_secret_stdin,
    )
    settings = settings_body(insecure=insecure, ca_file=ca_file, auth_hosts=auth_host, proxy=proxy)
    if settings and credentials == Credentials.none():
        body, what = {}, "settings"  # of an anonymous one
    else:
        body, what = credentials.body(session, rotating=True), "credentials"
    if settings:
        body["settings"] = settings
    answer = session.api().patch(f"/connections/{segment(host)}", body)
    done(session, answer, f"The {what} of {answer['host']} were replaced.")


def remove(
    ctx: typer.Context,
    host: Host,
    *,
    state: State = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Disconnect a registry: nothing of it is pulled or served any more."""
    session = session_of(ctx)
    session.confirm(f"Disconnect {host}? Devices can then pull nothing that comes from it.")
    answer = session.api().delete(f"/connections/{segment(host)}")
    done(session, answer, f"Disconnected {answer['host']}.")


def tags(
    ctx: typer.Context,
    repository: Annotated[str, typer.Argument(metavar="HOST/REPO", help="like ghcr.io/org/app")],
    *,
    hidden: Annotated[
        bool, typer.Option("--all", help="also tags that name signatures (sha256-….sig)")
    ] = False,
    match: Annotated[
        str | None, typer.Option(metavar="GLOB", help="only tags like this: 'v1.*'")
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """List a repository's tags, newest-likely first (a best effort)."""
    session = session_of(ctx)
    host, name = argument(parse_repository, repository)
    answer = session.api().get(
        f"/connections/{segment(host)}/tags", {"repository": name, "all": hidden, "match": match}
    )
    if session.as_json:
        document(session, answer)
    else:
        table(session, ("TAG",), ((item["name"],) for item in answer["tags"]), empty="No tags.")
        if session.stdout.isatty() and len(answer["tags"]) > 1:
            note(session, "Newest-likely first: a best effort, by what the names look like.")
    if answer["hidden"] and not session.as_json:
        note(
            session,
            f"Hidden: {answer['hidden']} of tools' own (signatures and the like); see --all.",
        )
    if answer["clipped"]:
        note(
            session,
            f"facade: clipped after {answer['read']} tags in {answer['pages']} pages, at "
            f"{clean(answer.get('last'))} in the registry's own order: the repository has more. Tags "
            "that are not listed can be imported by name all the same.",
        )
