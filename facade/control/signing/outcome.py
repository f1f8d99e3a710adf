"""What goes into a ceremony and comes out of it, as values."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer import Key

from facade.control.signing.proposal import Proposal


def delegate_command(repository: Path, online: Path, fleets: Sequence[str]) -> str:
    """The offline command that delegates to `fleets`, ready to be pasted."""
    words = ["facade", "trust", "delegate", *fleets, "--repository", str(repository)]
    words += ["--online-keys", str(online), "--offline-keys", "DIR", "--passphrase-file", "FILE"]
    return shlex.join(words)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a ceremony.

    Arguments:
        published: by role, the new versions; empty while signatures are missing.
        proposal: what was or will be published; None when there was nothing to do.
    """

    proposal: Proposal | None
    published: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An online key that lies elsewhere: its signer's URI and its public part."""

    uri: str
    public: Key
