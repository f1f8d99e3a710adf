"""`facade trust`: the signed metadata's state, and what carries a ceremony between machines.

Guarantees: `sign` and `key` need nothing but their own folder: no repository, no server, no network; a
holder is shown what a carried file would change before it is signed.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from facade.cli import trust_advance, trust_ceremony
from facade.cli.output import clean, document, done, line, note, table
from facade.cli.session import AsJson, Session, State, Yes, example, session_of
from facade.cli.trust_options import (
    OfflineKeysDir,
    OldKeyLost,
    OnlineKeysDir,
    PassphraseFile,
    RepositoryDir,
    RootOut,
    ceremony,
    needs,
    offline_keys,
    report,
)
from facade.errors import Conflict, Denied


def build() -> typer.Typer:
    """The noun's commands."""
    app = typer.Typer(
        help="The signed update metadata (TUF) and its keys.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.command("status", epilog=example("facade trust status"))(status)
    trust_ceremony.add(app)
    trust_advance.add(app)
    app.command(
        "key",
        epilog=example("facade trust key root --offline-keys /media/alice --out alice-root.pub"),
    )(key)
    app.command("export", epilog=example("facade trust export /media/usb/change.json"))(export)
    app.command(
        "sign",
        epilog=example("facade trust sign /media/usb/change.json --offline-keys /media/alice"),
    )(sign)
    app.command("import", epilog=example("facade trust import /media/usb/change.json"))(import_)
    app.command("discard", epilog=example("facade trust discard"))(discard)
    return app


def status(
    ctx: typer.Context,
    *,
    repository: RepositoryDir = None,
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


def key(
    ctx: typer.Context,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="root or targets")],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="write the public key here (default: beside)"),
    ] = None,
    offline_keys_dir: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make an offline key on this machine. Its private part stays here, encrypted; carry the public one."""
    from facade.cli.usage import Usage
    from facade.control.signing.keys import public_pem
    from facade.control.signing.layout import OFFLINE
    from facade.up.state import write

    session = session_of(ctx)
    if role not in OFFLINE:
        raise Usage("Offline keys are made for root or targets; the others are made online.")
    keys = offline_keys(session, offline_keys_dir, passphrase_file, new_keys=True)
    (signer,) = keys.add(role, 1)
    key_id = signer.public_key.keyid
    path = out or keys.folder / f"{role}-{key_id[:16]}.pub"
    write(path, public_pem(signer))
    body = {"role": role, "keyid": key_id, "public_key": str(path)}
    done(session, body, f"{role} key {key_id}; its public part is in {path}.")


def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="on the medium to be carried")],
    *,
    repository: RepositoryDir = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Write the change that waits for signatures to a file, for its holders to sign."""
    from facade.up.state import write

    session = session_of(ctx)
    proposal = ceremony(session, repository, None, None, None).pending()
    if proposal is None:
        raise Conflict("No change waits for signatures here.")
    write(file, proposal.to_bytes())
    body = {"file": str(file), "purpose": proposal.purpose, "missing": needs(proposal)}
    done(session, body, f"Wrote {file}: {proposal.purpose}.")


def sign(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="of `facade trust export`")],
    *,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="FILE", help="the newest root.json that this holder knows"),
    ] = None,
    offline_keys_dir: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    yes: Yes = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Add this holder's signatures to a carried file, after showing what it would change."""
    from facade.control.signing.layout import OFFLINE
    from facade.control.signing.pending import read_proposal
    from facade.up.state import write

    session = session_of(ctx)
    proposal = read_proposal(file)
    if root is not None and not proposal.follows(_read(root)):
        raise Denied(
            f"The file does not follow on the root in {root}: it was prepared for another "
            "installation, or there were changes that this holder does not know. Do not sign it."
        )
    changes = proposal.describe()
    for text in changes:
        note(session, clean(text))
    session.confirm("Sign this?")
    keys = offline_keys(session, offline_keys_dir, passphrase_file)
    before = {role: len(signatures) for role, signatures in proposal.signatures().items()}
    found = 0
    for role in OFFLINE:
        signers = keys.signers(role, proposal.key_ids(role))
        found += len(signers)
        proposal = proposal.signed_with(role, signers)
    if not found:
        raise Conflict(f"No key in {keys.folder} signs for this change.")
    write(file, proposal.to_bytes())
    added = {role: len(ids) - before[role] for role, ids in proposal.signatures().items()}
    missing = [str(need) for need in proposal.needs() if need.missing]
    if session.as_json:
        document(
            session,
            {"changes": list(changes), "added": added, "missing": needs(proposal)},
        )
        return
    line(session, f"Signed {file}.")
    for text in missing:
        line(session, f"Still missing: {text}")
    if not missing:
        line(session, "Every threshold is met. Where the repository is: facade trust import FILE")


def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="that holders have signed")],
    *,
    repository: RepositoryDir = None,
    online_keys: OnlineKeysDir = None,
    root_out: RootOut = None,
    old_key_lost: OldKeyLost = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Take a carried file's signatures; publish the change once every threshold is met."""
    from facade.control.signing.pending import read_proposal

    session = session_of(ctx)
    made = ceremony(session, repository, online_keys, None, None)
    carried = read_proposal(file)
    outcome = made.take_in(carried, old_key_lost=old_key_lost)
    more: dict[str, Any] = {"purpose": carried.purpose}
    if outcome.published and carried.base_root is None:
        more["root"] = str(trust_ceremony.write_root(session, made, root_out))
    report(session, outcome, f"Published: {carried.purpose}.", **more)


def discard(
    ctx: typer.Context,
    *,
    repository: RepositoryDir = None,
    yes: Yes = False,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Give up the change that waits for signatures. Nothing that is published changes."""
    session = session_of(ctx)
    session.confirm("Give up the change that waits, and its signatures?")
    was = ceremony(session, repository, None, None, None).discard()
    done(session, {"discarded": was}, "Discarded." if was else "No change was waiting.")


def _read(path: Path) -> bytes:
    from facade.cli.usage import Usage

    try:
        return path.read_bytes()
    except OSError as error:
        raise Usage(f"The root {path} cannot be read: {error.strerror}.") from error


def _local_status(session: Session, repository: Path, online: Path | None) -> dict[str, Any]:
    from facade.clock import SystemClock
    from facade.control.api.routes.trust import report as trust_report
    from facade.control.signing.keys import OnlineKeys
    from facade.control.signing.status import trust_status

    clock = SystemClock()
    state = trust_status(
        repository,
        OnlineKeys(online or repository.parent / session.folder.online_keys.name),
        offline=session.folder.offline,
        clock=clock,
    )
    return trust_report(state, clock.time()).model_dump(mode="json", exclude_none=True)
