"""The ceremonies of one machine that has all the offline keys: as `facade up` starts, and adds fleets.

Guarantees: the same steps as with several holders (`holders`), and nothing left waiting: with too few
keys at hand nothing changes. Can be run again after a crash and finishes, with the keys that were
made. Does not pin the root for anybody: the caller hands out the bytes that `initialise` returns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facade.clock import Clock
from facade.control.signing import layout
from facade.control.signing.changes import RoleKeys
from facade.control.signing.holders import Ceremony
from facade.control.signing.keys import OfflineKeys, OnlineKeys
from facade.control.signing.outcome import delegate_command
from facade.control.signing.repository import MetadataRepository
from facade.device import parse_fleet
from facade.errors import Conflict, Invalid
from facade.secret import Secret

__all__ = ["FleetDelegation", "Initialised", "delegate", "delegate_command", "initialise"]


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
    offline_keys = OfflineKeys(offline, passphrase)
    ceremony = Ceremony(repository, OnlineKeys(online), offline_keys, clock)
    ceremony.check_new()  # before any key is made
    counts = {layout.ROOT: (root_keys, root_threshold), layout.TARGETS: (1, 1)}
    roles = {
        role: RoleKeys([s.public_key for s in offline_keys.make(role, count)], threshold)
        for role, (count, threshold) in counts.items()
    }
    proposal = ceremony.initialise(roles, names, {}).proposal
    assert proposal is not None  # all keys are here
    root = proposal.top
    return Initialised(
        root=(ceremony.files.metadata / layout.file_name(layout.ROOT, 1)).read_bytes(),
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
    before = set(MetadataRepository(repository, clock).current().fleets)
    new = tuple(name for name in dict.fromkeys(map(parse_fleet, fleets)) if name not in before)
    keys = OfflineKeys(offline, passphrase)
    ceremony = Ceremony(repository, OnlineKeys(online), keys, clock)
    return new if ceremony.delegate(fleets, {}, wait=False).proposal is not None else ()


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
