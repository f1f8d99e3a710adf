"""Metadata bytes → verified values, with tuf's public Metadata API.

Guarantees: what it returns was re-checked link by link, root → timestamp → snapshot → targets →
fleet: signatures at their thresholds, types, versions, lengths and hashes, expiry by the time the
caller gives; every fleet role signs inside its own `<fleet>/` only. Does not remember anything:
that versions never go back is the work of `tuf.ngclient.Updater`, which ran before.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TypeVar

from tuf.api.exceptions import ExpiredMetadataError, RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    Targets,
    Timestamp,
)

from facade.device import parse_fleet
from facade.errors import Invalid, Unavailable
from facade.reasons import Reason
from facade.serving.trust.view import RETRY_SECONDS, FleetView, expired
from facade.target import SignedTarget, parse_artifact_path

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
_SEGMENTS = 3
"""Of a target's path; a pattern with more or fewer matches none (TUF 1.0, 4.5)."""
Read = Callable[[str], bytes]
"""Gives a persisted file's bytes; raises FileNotFoundError or another OSError."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The verified top-level roles.

    Arguments:
        fleets: the delegations that are as they should be, by fleet.
        problems: those that are not, in words; they count as if they were not there.
    """

    root: Root
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets
    fleets: Mapping[str, DelegatedRole]
    problems: tuple[str, ...]

    @property
    def roles(self) -> Mapping[str, Signed]:
        """By role name."""
        return {
            Root.type: self.root,
            Timestamp.type: self.timestamp,
            Snapshot.type: self.snapshot,
            Targets.type: self.targets,
        }

    def anchor(self, fleet: str) -> str:
        """A digest of all that the fleet's role has to be verified against."""
        role, entry = self.fleets[fleet], self._entry(fleet)
        delegations = self.targets.delegations
        keys = {} if delegations is None else delegations.keys
        facts = [
            entry.to_dict(),
            role.to_dict(),
            {keyid: keys[keyid].to_dict() for keyid in role.keyids if keyid in keys},
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def fleet_file(self, fleet: str) -> tuple[str, int | None]:
        """Under which name the fleet's role is fetched, and its bytes where the snapshot says so."""
        entry = self._entry(fleet)
        prefix = f"{entry.version}." if self.root.consistent_snapshot else ""
        return f"{prefix}{fleet}.json", entry.length

    def lists(self, fleet: str, data: bytes) -> bool:
        """Whether the snapshot lists, by its hashes, the fleet's role in this very file."""
        entry = self._entry(fleet)
        try:
            entry.verify_length_and_hashes(data)
        except RepositoryError:
            return False
        return bool(entry.hashes)

    def fleet_view(
        self, fleet: str, data: bytes, now: float, previous: FleetView | None
    ) -> FleetView:
        """Verify the fleet's role file and index it.

        Raises Unavailable when it is not what snapshot and delegation say, has expired, or
        signs a path that is not `<fleet>/<name>/<version>`.
        """
        with refusing(f"The role of fleet {fleet}"):
            entry = self._entry(fleet)
            entry.verify_length_and_hashes(data)
            signed = _load(Targets, data)
            self.targets.verify_delegate(fleet, signed.signed_bytes, signed.signatures)
            role = signed.signed
            _same_version(fleet, role, entry)
            expires = role.expires.timestamp()
            if expires <= now:
                raise expired("fleet")
            targets, problems = _targets(fleet, role)
        return FleetView.build(
            fleet,
            targets,
            version=role.version,
            expires=expires,
            problems=problems,
            anchor=self.anchor(fleet),
            previous=previous,
        )

    def _entry(self, fleet: str) -> MetaFile:
        entry = self.snapshot.meta.get(f"{fleet}.json")
        if entry is None:
            raise RepositoryError("the snapshot does not list it")
        return entry


def verified_chain(pinned: bytes, read: Read, now: float) -> Chain:
    """Verify the top-level roles, from the pinned root on.

    Arguments:
        pinned: the root.json that this installation trusts from the start.
        read: gives `root_history/<n>.root.json`, `timestamp.json`, `snapshot.json`, `targets.json`.
        now: Unix seconds.

    Raises Unavailable (METADATA_UNAVAILABLE, METADATA_EXPIRED).
    """
    with refusing("The signed metadata"):
        root = verified_roots(pinned, read)[-1]
        timestamp = _verified(Timestamp, read("timestamp.json"), root)
        data = read("snapshot.json")
        # The updater keeps a snapshot it knows when only the timestamp changed; look again.
        timestamp.snapshot_meta.verify_length_and_hashes(data)
        snapshot = _verified(Snapshot, data, root)
        _same_version(Snapshot.type, snapshot, timestamp.snapshot_meta)
        entry = snapshot.meta["targets.json"]
        data = read("targets.json")
        entry.verify_length_and_hashes(data)
        targets = _verified(Targets, data, root)
        _same_version(Targets.type, targets, entry)
        for signed in (timestamp, snapshot, targets, root):
            if signed.expires.timestamp() <= now:
                raise expired(signed.type)
        if targets.targets:
            raise RepositoryError("the top-level targets role signs targets; it may only delegate")
        fleets, problems = _delegations(targets)
    return Chain(root, timestamp, snapshot, targets, fleets, problems)


def verified_roots(pinned: bytes, read: Read) -> list[Root]:
    """The pinned root and its successors, each signed by its predecessor and by itself."""
    first = _load(Root, pinned)
    first.signed.verify_delegate(Root.type, first.signed_bytes, first.signatures)
    roots = [first.signed]
    while True:
        last = roots[-1]
        try:
            data = read(f"root_history/{last.version + 1}.root.json")
            following = _load(Root, data)
            last.verify_delegate(Root.type, following.signed_bytes, following.signatures)
            following.signed.verify_delegate(
                Root.type, following.signed_bytes, following.signatures
            )
        except (FileNotFoundError, RepositoryError):
            # As the updater does: what is kept there but does not follow is not a successor.
            return roots
        if following.signed.version != last.version + 1:
            return roots
        roots.append(following.signed)


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into Unavailable: it fails closed.

    Hostile metadata can make a library raise anything, so nothing narrower would do.
    """
    try:
        yield
    except Unavailable:
        raise
    except ExpiredMetadataError as error:
        raise Unavailable(
            f"{what} has expired: {error}.",
            reason=Reason.METADATA_EXPIRED,
            retry_after=RETRY_SECONDS,
        ) from error
    except Exception as error:
        raise Unavailable(
            f"{what} cannot be verified: {str(error) or type(error).__name__}.",
            reason=Reason.METADATA_UNAVAILABLE,
            retry_after=RETRY_SECONDS,
        ) from error


def _load(kind: type[T], data: bytes) -> Metadata[T]:
    metadata = Metadata[T].from_bytes(data)
    if metadata.signed.type != kind.type:
        raise RepositoryError(f"it is of type {metadata.signed.type}, not {kind.type}")
    return metadata


def _verified(kind: type[T], data: bytes, root: Root) -> T:
    metadata = _load(kind, data)
    root.verify_delegate(kind.type, metadata.signed_bytes, metadata.signatures)
    return metadata.signed


def _same_version(role: str, signed: Signed, entry: MetaFile) -> None:
    if signed.version != entry.version:
        raise RepositoryError(f"{role} has version {signed.version}, not {entry.version}")


def _delegations(targets: Targets) -> tuple[Mapping[str, DelegatedRole], tuple[str, ...]]:
    """One terminating role per fleet, for `<fleet>/*/*` and nothing else, that nobody comes before.

    A TUF client asks the roles in their order (TUF 1.0, 5.6.7): one that may sign the fleet's paths too and
    comes first has the say there, so that ours would be another than the devices'.
    """
    delegations = targets.delegations
    if delegations is None:
        return {}, ()
    if delegations.roles is None:
        raise RepositoryError("targets delegates to hash bins; fleets are delegated by name")
    fleets: dict[str, DelegatedRole] = {}
    ignored: list[DelegatedRole] = []
    problems: list[str] = []
    for name, role in delegations.roles.items():
        problem = _problem(name, role, ignored)
        if problem is None:
            fleets[name] = role
        else:
            ignored.append(role)
            problems.append(f"Delegation {name!r} is ignored: {problem}.")
    return fleets, tuple(problems)


def _problem(name: str, role: DelegatedRole, before: Sequence[DelegatedRole]) -> str | None:
    """Why the role is not a fleet's; `before` are those that come first and are none either."""
    try:
        parse_fleet(name)
    except Invalid:
        return "that is no fleet name"
    if not role.terminating or role.paths != [f"{name}/*/*"]:
        return f"it must be terminating and for {name}/*/* only"
    first = next((other.name for other in before if _reaches(other, name)), None)
    return None if first is None else f"{first!r} comes before it and may sign its paths"


def _reaches(role: DelegatedRole, fleet: str) -> bool:
    """Whether the role may sign a path of the fleet's; by the paths' hashes it may sign any."""
    if role.paths is None:
        return True
    patterns = (pattern.split("/") for pattern in role.paths)
    return any(len(parts) == _SEGMENTS and fnmatch(fleet, parts[0]) for parts in patterns)


def _targets(fleet: str, role: Targets) -> tuple[list[SignedTarget], tuple[str, ...]]:
    targets, problems = [], []
    if role.delegations is not None:
        problems.append(f"The role of fleet {fleet} delegates further; that is ignored.")
    for path, file in role.targets.items():
        # A path outside the grammar is no accident of one target: the whole role is refused.
        try:
            inside = parse_artifact_path(path)[0] == fleet
        except Invalid:
            inside = False
        if not inside:
            raise RepositoryError(f"it signs {path!r}, outside its own paths")
        try:
            targets.append(
                SignedTarget.parse(path, length=file.length, hashes=file.hashes, custom=file.custom)
            )
        except Invalid as error:
            problems.append(f"Target {path} is ignored: {error.message}")
    return targets, tuple(problems)
