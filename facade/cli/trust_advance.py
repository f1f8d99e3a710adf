"""`facade trust advance`: after a restore from a backup, version numbers that clients take again.

Guarantees: signs what is there, unchanged, with the online keys alone; a running `facade up` takes the
result up by itself. Does not bring back what the backup lacks.
"""

from typing import Annotated

import typer

from facade.cli.output import document, line, note
from facade.cli.session import AsJson, State, Yes, example, session_of
from facade.cli.trust_options import OnlineKeysDir, RepositoryDir

DEFAULT_BY = 1000


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("advance", epilog=example("facade trust advance --by 1000"))(advance)


def advance(
    ctx: typer.Context,
    *,
    by: Annotated[
        int, typer.Option(metavar="N", min=1, help="how far: above what was ever published")
    ] = DEFAULT_BY,
    repository: RepositoryDir = None,
    online_keys: OnlineKeysDir = None,
    state: State = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """After a restore from a backup: sign what it holds under higher version numbers.

    Devices refuse versions below those that they have seen. What was imported after the backup has
    to be imported again, before this or after it.
    """
    from facade.clock import SystemClock
    from facade.control.signing.keys import OnlineKeys
    from facade.control.signing.publisher import Publisher

    session = session_of(ctx)
    session.confirm(
        f"Raise every version number by {by}? It cannot be undone, and is needed after a restore only."
    )
    session.logs_to_stderr()
    publisher = Publisher(
        repository or session.folder.repository,
        OnlineKeys(online_keys or session.folder.online_keys),
        SystemClock(),
    )
    versions = publisher.advance(by)
    if session.as_json:
        document(session, {"versions": versions})
        return
    for role, version in versions.items():
        line(session, f"{role}\t{version}")
    note(
        session,
        "facade: root and targets stay as they are: their holders signed them. If one was signed "
        "anew after the backup, renew it as often: facade trust renew ROLE",
    )
