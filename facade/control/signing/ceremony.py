"""The ceremonies that need offline keys: the first signing, and delegating to new fleets.

Guarantees: each can be run again after a crash and finishes (keys that were made are used, nothing is
current before timestamp.json is written); private offline keys reach the disk encrypted only. Every
other use of the repository works with the offline folder absent. Does not pin the root for anybody:
the caller hands out the bytes that `initialise` returns.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Delegations, Root, Targets

from facade.clock import Clock
from facade.control.signing import layout
from facade.control.signing.draft import Draft, check_own
from facade.control.signing.keys import OfflineKeys, OnlineKeys
from facade.control.signing.repository import Current, MetadataRepository
from facade.device import parse_fleet
from facade.errors import Conflict, Invalid
from facade.secret import Secret


@dataclass(frozen=True, slots=True)
class Initialised:
    """The outcome of a first ceremony.

    Arguments:
        root: bytes of 1.root.json, to be pinned by every client.
        key_ids: by role, the keys that may sign for it.
        thresholds: by role, how many of them must.
    """

    root: bytes
    key_ids: dict[str, tuple[str, ...]]
    thresholds: dict[str, int]


def initialise(
    repository: Path,
    offline: Path,
    online: Path,
    passphrase: Secret,
    fleets: Sequence[str],
    *,
    clock: Clock,
    root_keys: int = 1,
    root_threshold: int = 1,
) -> Initialised:
    """Make all keys and the first signed repository.

    Arguments:
        offline: folder for the keys of root and targets, encrypted with `passphrase`.
        online: folder for the keys of snapshot, timestamp and every fleet's publisher.
        fleets: delegated from the start.
        root_keys, root_threshold: how many root keys to make, how many must sign.

    Raises Conflict when the repository was initialised before, Invalid for a bad fleet name,
    threshold or empty passphrase.
    """
    if not 1 <= root_threshold <= root_keys:
        raise Invalid("The root threshold must lie between 1 and the number of root keys.")
    names = [parse_fleet(fleet) for fleet in fleets]
    files = MetadataRepository(repository, clock)
    with files.lock():
        if files.exists:
            raise Conflict(f"{repository} holds a signed repository already.")
        keys, offline_keys = OnlineKeys(online), OfflineKeys(offline, passphrase)
        root_signers = offline_keys.make(layout.ROOT, root_keys)
        targets_signers = offline_keys.make(layout.TARGETS, 1)
        root = Root(consistent_snapshot=True)
        for role, signers in (
            (layout.ROOT, root_signers),
            (layout.TARGETS, targets_signers),
            (layout.SNAPSHOT, [keys.make(layout.SNAPSHOT)]),
            (layout.TIMESTAMP, [keys.make(layout.TIMESTAMP)]),
        ):
            for signer in signers:
                root.add_key(signer.public_key, role)
        root.roles[layout.ROOT].threshold = root_threshold
        draft = Draft(files, keys, clock, root=root, current=None)
        draft.add_root(root_signers)
        targets = Targets()
        _delegate(draft, keys, targets, names)
        draft.add_targets(targets, layout.TARGETS, targets_signers, root)
        draft.publish()
    return Initialised(
        root=(files.metadata / layout.file_name(layout.ROOT, 1)).read_bytes(),
        key_ids={name: tuple(role.keyids) for name, role in root.roles.items()},
        thresholds={name: role.threshold for name, role in root.roles.items()},
    )


def delegate(
    repository: Path,
    offline: Path,
    online: Path,
    passphrase: Secret,
    fleets: Sequence[str],
    *,
    clock: Clock,
) -> tuple[str, ...]:
    """Delegate to `fleets`, several ahead if wished; those that are delegated already stay.

    Returns the newly delegated ones. Raises Conflict when the targets key is not at hand, Denied
    for a wrong passphrase, Invalid for a bad fleet name.
    """
    names = [parse_fleet(fleet) for fleet in fleets]
    files = MetadataRepository(repository, clock)
    keys = OnlineKeys(online)
    with files.lock():
        current = files.current()
        new = [name for name in dict.fromkeys(names) if name not in current.fleets]
        if not new:
            return ()
        signers = _targets_signers(current, offline, passphrase)
        if not signers:
            raise Conflict(
                f"The targets key is not in {offline}. Run, where it is at hand: "
                f"{delegate_command(repository, online, new)}"
            )
        check_own(layout.TARGETS, current.targets, signers)
        draft = Draft(files, keys, clock, root=current.root.signed, current=current)
        targets = current.targets.signed
        _delegate(draft, keys, targets, new)
        draft.add_targets(targets, layout.TARGETS, signers, current.root.signed)
        draft.publish()
    return tuple(new)


def delegate_command(repository: Path, online: Path, fleets: Sequence[str]) -> str:
    """The offline command that delegates to `fleets`, ready to be pasted."""
    words = ["facade", "trust", "delegate", *fleets, "--repository", str(repository)]
    words += ["--online-keys", str(online), "--offline-keys", "DIR", "--passphrase-file", "FILE"]
    return shlex.join(words)


class FleetDelegation:
    """Adding fleets from the running control plane: with the targets key if it is still here.

    Arguments:
        offline, passphrase_file: where `facade up` left the targets key; usually carried away.
    """

    def __init__(
        self,
        repository: Path,
        online: Path,
        clock: Clock,
        *,
        offline: Path | None = None,
        passphrase_file: Path | None = None,
    ) -> None:
        self._repository = repository
        self._online = online
        self._clock = clock
        self._offline = offline
        self._passphrase_file = passphrase_file

    def ensure(self, fleet: str) -> bool:
        """Delegate to `fleet` unless it is (or was, ahead). Returns whether that was needed.

        Raises Conflict with the command to run offline when the targets key is not at hand.
        """
        parse_fleet(fleet)
        if fleet in MetadataRepository(self._repository, self._clock).current().fleets:
            return False
        passphrase = self._passphrase()
        if self._offline is None or not self._offline.is_dir() or passphrase is None:
            raise Conflict(
                f"The fleet {fleet} needs the offline targets key, which is not on this machine. "
                f"Run where it is: {delegate_command(self._repository, self._online, [fleet])}"
            )
        return bool(
            delegate(
                self._repository,
                self._offline,
                self._online,
                passphrase,
                [fleet],
                clock=self._clock,
            )
        )

    def _passphrase(self) -> Secret | None:
        try:
            text = self._passphrase_file.read_text() if self._passphrase_file else ""
        except OSError:
            return None
        return Secret(text.strip("\r\n")) if text.strip("\r\n") else None


def _targets_signers(current: Current, offline: Path, passphrase: Secret) -> list[CryptoSigner]:
    """The keys at hand that the root names for targets: an older one may lie beside it."""
    named = current.root.signed.roles[layout.TARGETS].keyids
    found = OfflineKeys(offline, passphrase).signers(layout.TARGETS)
    return [signer for signer in found if signer.public_key.keyid in named]


def _delegate(draft: Draft, keys: OnlineKeys, targets: Targets, fleets: Sequence[str]) -> None:
    """Give each fleet a publisher key, a delegation, and a first role without targets."""
    if targets.delegations is None:
        targets.delegations = Delegations(keys={}, roles={})
    roles = targets.delegations.roles
    assert roles is not None  # we lay out named roles only, never succinct ones
    for fleet in dict.fromkeys(fleets):
        signer = keys.make(fleet)
        roles[fleet] = layout.delegation(fleet, signer.public_key)
        targets.add_key(signer.public_key, fleet)
        draft.add_targets(Targets(), fleet, [signer], targets)
