"""`facade trust`: the signed metadata's state, and the ceremonies with offline keys.

Guarantees: `init` and `delegate` work on folders, without a server; a passphrase comes from a prompt or
a file, never from an argument.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from facade.cli.output import clean, document, done, line, note, table
from facade.cli.session import AsJson, Session, State, example, read_file, session_of
from facade.cli.usage import Usage
from facade.secret import Secret

Repository = Annotated[
    Path | None,
    typer.Option("--repository", metavar="DIR", help="repository folder (default: in --state)"),
]
OnlineKeysDir = Annotated[
    Path | None,
    typer.Option("--online-keys", metavar="DIR", help="online keys (default: in --state)"),
]
OfflineKeysDir = Annotated[
    Path | None,
    typer.Option("--offline-keys", metavar="DIR", help="root and targets keys, encrypted"),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="their passphrase; default: a prompt"),
]


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(
        help="The signed update metadata (TUF) and its keys.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.command("status", epilog=example("facade trust status"))(status)
    app.command(
        "init",
        epilog=example(
            "facade trust init --fleet kiosks --repository repo --online-keys online "
            "--offline-keys /media/usb/keys"
        ),
    )(init)
    app.command(
        "delegate",
        epilog=example("facade trust delegate kiosks --offline-keys /media/usb/keys"),
    )(delegate)
    return app


def status(
    ctx: typer.Context,
    *,
    repository: Repository = None,
    online_keys: OnlineKeysDir = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Show every role: version, expiry, keys. From the server, or from a folder."""
    session = session_of(ctx)
    if repository is None:
        answer = session.api().get("/trust")
    else:
        answer = _local_status(session, repository, online_keys)
    if session.as_json:
        document(session, answer)
    else:
        table(
            session,
            ("ROLE", "VERSION", "EXPIRES", "KEYS", "OFFLINE", "ARTIFACTS"),
            (
                (
                    role["role"],
                    role["version"],
                    role["expires"],
                    f"{role['threshold']} of {len(role['keys'])}",
                    role["offline"],
                    role.get("artifacts"),
                )
                for role in answer["roles"]
            ),
        )
    for warning in answer["warnings"]:
        note(session, f"facade: {clean(warning)}")
    if not answer["ok"]:
        raise typer.Exit(1)


def init(
    ctx: typer.Context,
    *,
    fleet: Annotated[
        list[str] | None, typer.Option(metavar="F", help="delegate to this fleet from the start")
    ] = None,
    repository: Repository = None,
    online_keys: OnlineKeysDir = None,
    offline_keys: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    root_keys: Annotated[int, typer.Option(min=1, max=16, help="root keys to make")] = 1,
    root_threshold: Annotated[int, typer.Option(min=1, max=16, help="how many must sign")] = 1,
    root_out: Annotated[
        Path | None,
        typer.Option("--root-out", metavar="FILE", help="write the root to pin here"),
    ] = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make all keys and the first signed repository. Carry the offline keys away afterwards."""
    from facade.clock import SystemClock
    from facade.control.signing.ceremony import initialise
    from facade.up.state import write

    session = session_of(ctx)
    session.logs_to_stderr()
    offline = offline_keys or session.folder.offline
    made = initialise(
        repository or session.folder.repository,
        offline,
        online_keys or session.folder.online_keys,
        _new_passphrase(session, passphrase_file),
        fleet or [],
        clock=SystemClock(),
        root_keys=root_keys,
        root_threshold=root_threshold,
    )
    pinned = root_out or session.folder.pinned_root
    write(pinned, made.root)
    if session.as_json:
        keys = {role: list(ids) for role, ids in made.key_ids.items()}
        document(session, {"keys": keys, "thresholds": made.thresholds, "root": str(pinned)})
        return
    for role, ids in made.key_ids.items():
        line(session, f"{role}: {made.thresholds[role]} of {len(ids)}: {', '.join(ids)}")
    line(session, f"root to pin on devices: {pinned}")
    note(session, f"facade: carry {offline} away now; it is needed only for ceremonies.")


def delegate(
    ctx: typer.Context,
    fleets: Annotated[list[str], typer.Argument(metavar="FLEET…", help="several ahead, if wished")],
    *,
    repository: Repository = None,
    online_keys: OnlineKeysDir = None,
    offline_keys: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Delegate to fleets with the offline targets key."""
    from facade.clock import SystemClock
    from facade.control.signing.ceremony import delegate as ceremony

    session = session_of(ctx)
    session.logs_to_stderr()
    added = ceremony(
        repository or session.folder.repository,
        offline_keys or session.folder.offline,
        online_keys or session.folder.online_keys,
        _passphrase(session, passphrase_file),
        fleets,
        clock=SystemClock(),
    )
    body = {"delegated": list(added), "unchanged": [f for f in fleets if f not in added]}
    done(session, body, f"Delegated: {', '.join(added) or 'nothing new'}.")


def _local_status(session: Session, repository: Path, online: Path | None) -> dict[str, Any]:
    from facade.clock import SystemClock
    from facade.control.api.routes.trust import report
    from facade.control.signing.keys import OnlineKeys
    from facade.control.signing.status import trust_status

    clock = SystemClock()
    state = trust_status(
        repository,
        OnlineKeys(online or repository.parent / session.folder.online_keys.name),
        offline=session.folder.offline,
        clock=clock,
    )
    return report(state, clock.time()).model_dump(mode="json", exclude_none=True)


def _passphrase(session: Session, file: Path | None) -> Secret:
    file = file or _if_there(session.folder.offline_passphrase)
    if file is None:
        return session.read_secret(
            "Passphrase of the offline keys", from_stdin=False, option="--passphrase-file"
        )
    text = read_file(file, "passphrase file").strip("\r\n")
    if not text:
        raise Usage(f"The passphrase file {file} is empty.")
    return Secret(text)


def _new_passphrase(session: Session, file: Path | None) -> Secret:
    if file is not None:
        return _passphrase(session, file)
    first = session.read_secret(
        "New passphrase for the offline keys", from_stdin=False, option="--passphrase-file"
    )
    again = session.read_secret("Once more", from_stdin=False, option="--passphrase-file")
    if first != again:
        raise Usage("The two passphrases differ; nothing was made.")
    return first


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
