"""What `facade up` makes when it is missing: certificates, the sealing key, keys and signed metadata.

Guarantees: it can be interrupted anywhere and finishes at the next start; what exists is never
replaced (but for a server certificate that lacks a name or nears its end); secrets are private
files. A database without its sealing key is an error, not a reason to make another key.
"""

import secrets
import socket
from collections.abc import Sequence

from facade.clock import Clock
from facade.control.connections.sealing import KeyRing
from facade.control.devices.development import DevelopmentPki
from facade.control.signing.ceremony import initialise
from facade.control.signing.repository import MetadataRepository
from facade.errors import Conflict
from facade.secret import Secret
from facade.up.state import PRIVATE, StateFolder, write

FIRST_FLEET = "dev"
_PASSPHRASE_BYTES = 24


def prepare(state: StateFolder, names: Sequence[str], clock: Clock) -> DevelopmentPki:
    """Make what is missing in `state`, which is locked by the caller.

    Arguments:
        names: host names and addresses that devices use, besides localhost and this host's own.

    Raises Invalid for an impossible name, Conflict when something that was made before is gone,
    Unavailable or Invalid when a file cannot be written.
    """
    pki = DevelopmentPki(state.root)
    pki.ensure([socket.gethostname(), *names], clock)
    if not state.sealing_key.exists():
        if state.database.exists():
            raise Conflict(
                f"{state.sealing_key} is missing, and {state.database} holds secrets sealed with "
                "it. Put the file back; without it the registries have to be connected anew."
            )
        KeyRing.generate().save(state.sealing_key)
    _sign(state, clock)
    return pki


def _sign(state: StateFolder, clock: Clock) -> None:
    """The first ceremony, unless it is over."""
    repository = MetadataRepository(state.repository, clock)
    with repository.lock():
        pass  # whoever takes the lock finishes a publication that died half way: then it exists
    if not repository.exists:
        if not state.offline_passphrase.exists():
            write(state.offline_passphrase, secrets.token_urlsafe(_PASSPHRASE_BYTES), PRIVATE)
        initialise(
            state.repository,
            state.offline,
            state.online_keys,
            Secret(state.offline_passphrase.read_text().strip()),
            [FIRST_FLEET],
            clock=clock,
        )
    if not state.pinned_root.exists():
        if state.verified.exists():
            raise Conflict(
                f"{state.pinned_root}, the pinned root of trust, is missing. Put the file back: "
                "another root would not be the one that devices know."
            )
        write(state.pinned_root, (repository.metadata / "1.root.json").read_bytes())
