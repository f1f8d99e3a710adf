"""Options and steps that the commands of `facade trust` share.

Guarantees: a passphrase comes from a prompt or a file, never from an argument, and is asked for only when
there is a key to open or to make.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facade.cli.output import clean, document, line, note
from facade.cli.session import Session, read_file
from facade.cli.usage import Usage
from facade.secret import Secret

if TYPE_CHECKING:
    from facade.control.signing.holders import Ceremony
    from facade.control.signing.keys import PublicKey
    from facade.control.signing.outcome import Elsewhere, Outcome
    from facade.control.signing.proposal import Proposal

RepositoryDir = Annotated[
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
KeyUris = Annotated[
    list[str] | None,
    typer.Option(
        "--key-uri",
        metavar="ROLE=URI",
        help="this online key lies elsewhere: file:, awskms:, gcpkms:, azurekms:, hv:, hsm:",
    ),
]
PublicKeys = Annotated[
    list[str] | None,
    typer.Option("--public-key", metavar="ROLE=FILE", help="the public part of that key, PEM"),
]
OldKeyLost = Annotated[
    bool,
    typer.Option("--old-key-lost", help="go on although the former online key is gone"),
]
RootOut = Annotated[
    Path | None,
    typer.Option("--root-out", metavar="FILE", help="write the root to pin here"),
]


def ceremony(
    session: Session,
    repository: Path | None,
    online: Path | None,
    offline: Path | None,
    passphrase_file: Path | None,
    *,
    new_keys: bool = False,
) -> "Ceremony":
    """The ceremony on these folders, or on those of the state folder.

    Arguments:
        new_keys: the passphrase may be for keys to be made: ask for it twice.
    """
    from facade.clock import SystemClock
    from facade.control.signing.holders import Ceremony
    from facade.control.signing.keys import OnlineKeys

    session.logs_to_stderr()
    return Ceremony(
        repository or session.folder.repository,
        OnlineKeys(online or session.folder.online_keys),
        offline_keys(session, offline, passphrase_file, new_keys=new_keys),
        SystemClock(),
    )


def offline_keys(
    session: Session, folder: Path | None, passphrase_file: Path | None, *, new_keys: bool = False
) -> Any:
    """The offline keys in a folder."""
    from facade.control.signing.keys import OfflineKeys

    folder = folder or session.folder.offline
    is_fresh = new_keys and not any(folder.glob("*.pem"))
    return OfflineKeys(folder, lambda: passphrase(session, passphrase_file, new=is_fresh))


def passphrase(session: Session, file: Path | None, *, new: bool = False) -> Secret:
    """From the file, the state folder's file, or a prompt; twice for a new one. Raises Usage."""
    beside = session.folder.offline_passphrase
    file = file or (beside if beside.exists() else None)
    if file is not None:
        text = read_file(file, "passphrase file").strip("\r\n")
        if not text:
            raise Usage(f"The passphrase file {file} is empty.")
        return Secret(text)
    what = "New passphrase for the offline keys" if new else "Passphrase of the offline keys"
    first = session.read_secret(what, from_stdin=False, option="--passphrase-file")
    if new and first != session.read_secret(
        "Once more", from_stdin=False, option="--passphrase-file"
    ):
        raise Usage("The two passphrases differ; nothing was made.")
    return first


def elsewhere(uris: Sequence[str] | None, files: Sequence[str] | None) -> "dict[str, Elsewhere]":
    """The online keys that lie elsewhere, by role. Raises Usage for half of a pair."""
    from facade.control.signing.outcome import Elsewhere

    by_role, public = _pairs(uris, "--key-uri"), _pairs(files, "--public-key")
    if by_role.keys() != public.keys():
        raise Usage("Give --key-uri ROLE=URI and --public-key ROLE=FILE for the same roles.")
    return {role: Elsewhere(uri, public_key(Path(public[role]))) for role, uri in by_role.items()}


def public_key(path: Path) -> "PublicKey":
    """A public key from a PEM file, as `facade trust key` writes it. Raises Usage."""
    from facade.control.signing.keys import public_key_of_pem
    from facade.errors import Invalid

    try:
        return public_key_of_pem(read_file(path, "public key").encode())
    except Invalid as error:
        raise Usage(f"{path}: {error.message}") from error


def report(session: Session, outcome: "Outcome", sentence: str, **more: Any) -> None:
    """Say what became of a ceremony: published, or waiting for whom."""
    proposal = outcome.proposal
    missing = needs(proposal) if proposal is not None and not proposal.is_complete else []
    if session.as_json:
        document(
            session,
            {
                **more,
                "published": not missing,
                "versions": dict(outcome.published),
                "missing": missing,
            },
        )
        return
    if not missing:
        line(session, clean(sentence))
        return
    assert proposal is not None
    line(session, f"Prepared, not published: {clean(proposal.purpose)}. Signatures are missing:")
    for need in proposal.needs():
        if need.missing:
            line(session, f"  {need}")
    note(
        session,
        "facade: write it to a medium with: facade trust export FILE; each holder runs: facade "
        "trust sign FILE; then here: facade trust import FILE",
    )


def needs(proposal: "Proposal") -> list[dict[str, Any]]:
    """Who signed and who has to, for `--json`."""
    return [
        {
            "role": need.role,
            "by": need.by,
            "threshold": need.threshold,
            "signed": list(need.signed),
            "unsigned": list(need.unsigned),
            "missing": need.missing,
        }
        for need in proposal.needs()
    ]


def _pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    found = {}
    for text in texts or ():
        role, equals, value = text.partition("=")
        if not (role and equals and value):
            raise Usage(f"Write {option} ROLE=…, like {option} timestamp=…, not {text}.")
        found[role] = value
    return found
