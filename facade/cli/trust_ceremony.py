"""`facade trust init, delegate, remove, rotate, renew`: the ceremonies, on folders, without a server.

Guarantees: what the offline keys at hand can sign is published at once; anything else waits, invisible to
clients, for `export`, `sign` and `import`. A running `facade up` takes the result up by itself.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facade.cli.output import line, note
from facade.cli.session import AsJson, Session, State, example, session_of
from facade.cli.trust_options import (
    KeyUris,
    OfflineKeysDir,
    OldKeyLost,
    OnlineKeysDir,
    PassphraseFile,
    PublicKeys,
    RepositoryDir,
    RootOut,
    ceremony,
    elsewhere,
    public_key,
    report,
)
from facade.cli.usage import Usage

if TYPE_CHECKING:
    from facade.control.signing.holders import Ceremony


def add(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(
        "init",
        epilog=example(
            "facade trust init --fleet kiosks --repository repo --online-keys online "
            "--offline-keys /media/usb/keys",
            "facade trust init --fleet kiosks --root-key alice.pub --root-key bob.pub --root-key "
            "carol.pub --root-threshold 2 --targets-key dan.pub",
        ),
    )(init)
    app.command(
        "delegate",
        epilog=example("facade trust delegate kiosks --offline-keys /media/usb/keys"),
    )(delegate)
    app.command(
        "remove", epilog=example("facade trust remove kiosks --offline-keys /media/usb/keys")
    )(remove)
    app.command(
        "rotate",
        epilog=example(
            "facade trust rotate timestamp --offline-keys /media/usb/keys",
            "facade trust rotate root --add dora.pub --drop 5f1c09",
        ),
    )(rotate)
    app.command("renew", epilog=example("facade trust renew --offline-keys /media/usb/keys"))(renew)


def init(
    ctx: typer.Context,
    *,
    fleet: Annotated[
        list[str] | None, typer.Option(metavar="F", help="delegate to this fleet from the start")
    ] = None,
    repository: RepositoryDir = None,
    online_keys: OnlineKeysDir = None,
    offline_keys_dir: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    root_keys: Annotated[int, typer.Option(min=1, max=16, help="root keys to make here")] = 1,
    root_key: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="public root key of a holder, instead of making some"),
    ] = None,
    root_threshold: Annotated[int, typer.Option(min=1, max=16, help="how many must sign")] = 1,
    targets_key: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="public targets key of a holder, likewise"),
    ] = None,
    targets_threshold: Annotated[int, typer.Option(min=1, max=16, help="how many must sign")] = 1,
    key_uri: KeyUris = None,
    public_keys: PublicKeys = None,
    root_out: RootOut = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Make the first signed repository, and the keys that do not exist yet.

    With holders' public keys, it waits for their signatures: see export, sign and import.
    """
    from facade.control.signing.changes import RoleKeys
    from facade.control.signing.layout import ROOT, TARGETS

    session = session_of(ctx)
    where = elsewhere(key_uri, public_keys)
    made = ceremony(
        session, repository, online_keys, offline_keys_dir, passphrase_file, new_keys=True
    )
    made.check_new()
    wanted = (
        (ROOT, root_key, root_keys, root_threshold),
        (TARGETS, targets_key, 1, targets_threshold),
    )
    for role, files, count, threshold in wanted:  # before any key is made
        if threshold > (len(files) if files else count):
            raise Usage(f"The {role} threshold is larger than the number of {role} keys.")
    roles = {}
    for role, files, count, threshold in wanted:
        keys = [public_key(path) for path in files or ()] or [
            signer.public_key for signer in made.offline.make(role, count)
        ]
        roles[role] = RoleKeys(keys, threshold)
    outcome = made.initialise(roles, fleet or [], where)
    assert outcome.proposal is not None
    top = outcome.proposal.top
    more: dict[str, Any] = {
        "keys": {name: list(role.keyids) for name, role in top.roles.items()},
        "thresholds": {name: role.threshold for name, role in top.roles.items()},
    }
    if outcome.published:
        more["root"] = str(write_root(session, made, root_out))
    report(session, outcome, "The first signed repository is published.", **more)
    if session.as_json:
        return
    for name, listed in top.roles.items():
        line(
            session,
            f"{name}: {listed.threshold} of {len(listed.keyids)}: {', '.join(listed.keyids)}",
        )
    if outcome.published:
        line(session, f"root to pin on devices: {more['root']}")
    if any(made.offline.folder.glob("*.pem")):
        note(
            session,
            f"facade: carry {made.offline.folder} away now; it is needed only for ceremonies.",
        )


def delegate(
    ctx: typer.Context,
    fleets: Annotated[list[str], typer.Argument(metavar="FLEET…", help="several ahead, if wished")],
    *,
    key_uri: KeyUris = None,
    public_keys: PublicKeys = None,
    repository: RepositoryDir = None,
    online_keys: OnlineKeysDir = None,
    offline_keys_dir: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Delegate to fleets with the offline targets key."""
    session = session_of(ctx)
    where = elsewhere(key_uri, public_keys)
    made = ceremony(session, repository, online_keys, offline_keys_dir, passphrase_file)
    present = set(made.files.current().fleets)
    outcome = made.delegate(fleets, where)
    added = [fleet for fleet in dict.fromkeys(fleets) if fleet not in present]
    more = {"delegated": added, "unchanged": [f for f in fleets if f in present]}
    report(session, outcome, f"Delegated: {', '.join(added) or 'nothing new'}.", **more)


def remove(
    ctx: typer.Context,
    fleets: Annotated[list[str], typer.Argument(metavar="FLEET…")],
    *,
    repository: RepositoryDir = None,
    online_keys: OnlineKeysDir = None,
    offline_keys_dir: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Drop fleets: nothing more is signed for them or served to them. Their keys are spent."""
    session = session_of(ctx)
    made = ceremony(session, repository, online_keys, offline_keys_dir, passphrase_file)
    report(session, made.remove(fleets), f"Removed: {', '.join(fleets)}.", removed=fleets)


def rotate(
    ctx: typer.Context,
    roles: Annotated[
        list[str],
        typer.Argument(metavar="ROLE…", help="root, targets, snapshot, timestamp, or a fleet"),
    ],
    *,
    add_key: Annotated[
        list[Path] | None,
        typer.Option("--add", metavar="FILE", help="public key to add (root, targets)"),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="KEYID", help="key to drop, its first characters (root, targets)"),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option(min=1, max=16, help="how many must sign (root, targets)")
    ] = None,
    key_uri: KeyUris = None,
    public_keys: PublicKeys = None,
    old_key_lost: OldKeyLost = False,
    repository: RepositoryDir = None,
    online_keys: OnlineKeysDir = None,
    offline_keys_dir: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Give roles new keys, and sign them anew in the same step. The old keys sign no more.

    For root and targets without --add and --drop, every key at hand is replaced by a new one.
    """
    session = session_of(ctx)
    where = elsewhere(key_uri, public_keys)
    made = ceremony(session, repository, online_keys, offline_keys_dir, passphrase_file)
    outcome = made.rotate(
        roles,
        where,
        add=[public_key(path) for path in add_key or ()],
        drop=drop or (),
        threshold=threshold,
        old_key_lost=old_key_lost,
    )
    report(session, outcome, f"Rotated: {', '.join(roles)}.", rotated=roles)


def renew(
    ctx: typer.Context,
    roles: Annotated[
        list[str] | None, typer.Argument(metavar="[ROLE…]", help="root, targets; default: both")
    ] = None,
    *,
    repository: RepositoryDir = None,
    online_keys: OnlineKeysDir = None,
    offline_keys_dir: OfflineKeysDir = None,
    passphrase_file: PassphraseFile = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Sign root and targets for another year, before they expire or after."""
    from facade.control.signing.layout import OFFLINE

    session = session_of(ctx)
    wanted = list(dict.fromkeys(roles or OFFLINE))
    made = ceremony(session, repository, online_keys, offline_keys_dir, passphrase_file)
    report(session, made.renew(wanted), f"Renewed: {', '.join(wanted)}.", renewed=wanted)


def write_root(session: Session, made: "Ceremony", out: Path | None) -> Path:
    """Write the first root where it is to be pinned; gives the path."""
    from facade.control.signing.layout import ROOT, file_name
    from facade.up.state import write

    pinned = out or session.folder.pinned_root
    write(pinned, (made.files.metadata / file_name(ROOT, 1)).read_bytes())
    return pinned
