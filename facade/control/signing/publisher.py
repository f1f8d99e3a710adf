"""Publishing and withdrawing signed artifacts, and keeping short-lived roles fresh.

Guarantees: concurrent publishers, in threads or processes, lose no update and a reader sees all of a
change or none of it; a signed target never changes under its path, nor does another image ever come
under a path that was withdrawn; what is extended was signed by our
own keys before. Synchronous and disk-bound: call it in a thread. Does not check that a target exists
in any registry: import does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Targets

from facade.clock import Clock, utc
from facade.control.signing import layout
from facade.control.signing.draft import Draft, check_own
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.parsed import ParsedRoles
from facade.control.signing.repository import Current, MetadataRepository
from facade.control.signing.withdrawn import WithdrawnPaths
from facade.errors import Conflict, Invalid, NotFound
from facade.target import SignedTarget

RENEW_FRACTION = 0.5
"""An online role is signed anew when this part of its life is over."""


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What a publication did.

    Arguments:
        versions: the new versions by role; empty when nothing had to change.
        added, unchanged, removed: target paths.
    """

    versions: Mapping[str, int] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether new metadata was published."""
        return bool(self.versions)


MAX_ADVANCE = 1_000_000
"""How far `Publisher.advance` goes: some centuries of imports, far from any limit of a number."""


class Publisher:
    """Signs with the online keys.

    Arguments:
        repository: the repository folder (`metadata/` below it is what is served).
        keys: of the fleets, snapshot and timestamp.
    """

    def __init__(self, repository: Path, keys: OnlineKeys, clock: Clock) -> None:
        self._repository = MetadataRepository(repository, clock)
        self._withdrawn = WithdrawnPaths(repository)
        self._keys = keys
        self._clock = clock
        self._parsed = ParsedRoles()

    @property
    def repository(self) -> MetadataRepository:
        """Where it publishes, for who only reads: it knows what it has verified already."""
        return self._repository

    def fleets(self) -> tuple[str, ...]:
        """The delegated fleets. Raises Integrity, or Conflict before the first ceremony."""
        return self._repository.current().fleets

    def targets(self, fleet: str) -> Mapping[str, SignedTarget]:
        """What is signed for `fleet`, by path. Raises NotFound for an unknown fleet, Integrity."""
        current = self._repository.current()

        def read() -> Mapping[str, SignedTarget]:
            signed = self._fleet_role(current, fleet).signed.targets
            return {path: layout.signed_target(path, target) for path, target in signed.items()}

        return self._parsed.get(current, fleet, read)

    def publish(
        self, fleet: str, *, add: Sequence[SignedTarget] = (), remove: Sequence[str] = ()
    ) -> PublishResult:
        """Sign `add` for `fleet` and withdraw the paths in `remove`, all or nothing.

        A target that is signed already, with the same value, is left as it is.

        Raises Conflict (another value under a signed path, a limit reached, a key missing),
        NotFound (an unknown fleet; a path to remove that is not there), Invalid (a target of
        another fleet), Integrity, Unavailable (the disk).
        """
        with self._repository.lock():
            current = self._repository.current()
            role = self._fleet_role(current, fleet)
            check_own(fleet, role, self._own(fleet))
            leaving = layout.digests(role.signed, remove)
            added, unchanged = _merge(role.signed, fleet, add, remove)
            _check_withdrawn(add, self._withdrawn.load())
            self._withdrawn.note(leaving)
            if not added and not remove:
                return PublishResult(unchanged=unchanged)
            draft = self._draft(current)
            self._sign_fleet(draft, current, fleet, role)
            draft.publish()
            return PublishResult(draft.versions, added, unchanged, tuple(remove))

    def resign(self) -> bool:
        """Sign anew what has lived half of its life: fleets, snapshot, timestamp.

        Whoever comes second finds nothing due. Returns whether anything was. Raises as `publish`.
        """
        with self._repository.lock():
            current = self._repository.current()
            due = [
                (fleet, self._repository.fleet(current, fleet))
                for fleet in current.fleets
                if self._due(fleet, self._repository.summary(current, fleet).expires)
            ]
            snapshot_due = self._due(layout.SNAPSHOT, current.snapshot.signed.expires)
            timestamp_due = self._due(layout.TIMESTAMP, current.timestamp.signed.expires)
            if not (due or snapshot_due or timestamp_due):
                return False
            draft = self._draft(current)
            for fleet, role in due:
                check_own(fleet, role, self._own(fleet))
                self._sign_fleet(draft, current, fleet, role)
            draft.publish(renew_snapshot=snapshot_due or bool(due))
            return True

    def advance(self, by: int) -> Mapping[str, int]:
        """Sign what online keys sign again as it is, under version numbers higher by `by`.

        For a repository that was restored from a backup: clients that saw later versions refuse
        the restored ones as a rollback until the numbers are above those. Gives the new versions
        by role. Raises Invalid, and as `publish`.
        """
        if not 1 <= by <= MAX_ADVANCE:
            raise Invalid(f"Version numbers advance by 1 to {MAX_ADVANCE} at a time.")
        with self._repository.lock():
            current = self._repository.current()
            draft = self._draft(current, ahead=by)
            for fleet in current.fleets:
                role = self._repository.fleet(current, fleet)
                check_own(fleet, role, self._own(fleet))
                self._sign_fleet(draft, current, fleet, role)
            draft.publish()
            return draft.versions

    def _due(self, role: str, expires: datetime) -> bool:
        left = (expires - utc(self._clock)).total_seconds()
        return left <= layout.lifetime(role).total_seconds() * (1 - RENEW_FRACTION)

    def _draft(self, current: Current, *, ahead: int = 1) -> Draft:
        return Draft(
            *(self._repository, self._keys, self._clock),
            root=current.root.signed,
            current=current,
            ahead=ahead,
        )

    def _fleet_role(self, current: Current, fleet: str) -> Metadata[Targets]:
        if fleet not in current.fleets:
            raise NotFound(f"There is no fleet {fleet}. Add it with: facade fleet add {fleet}")
        return self._repository.fleet(current, fleet)

    def _sign_fleet(
        self, draft: Draft, current: Current, fleet: str, role: Metadata[Targets]
    ) -> None:
        signer = self._signer(current, fleet)
        draft.add_targets(role.signed, fleet, [signer], current.targets.signed)

    def _own(self, fleet: str) -> list[Signer]:
        return self._keys.signers(fleet) or [self._keys.signer(fleet)]

    def _signer(self, current: Current, fleet: str) -> Signer:
        named = layout.delegated_keys(current.targets.signed, fleet)
        return self._keys.signer(fleet, named)


def _check_withdrawn(add: Sequence[SignedTarget], withdrawn: Mapping[str, str]) -> None:
    for target in add:
        if withdrawn.get(target.path, target.digest.hex) != target.digest.hex:
            raise Conflict(
                f"{target.path} stood for another image before it was withdrawn, and never "
                "changes: use another version."
            )


def _merge(
    signed: Targets, fleet: str, add: Sequence[SignedTarget], remove: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Change `signed` in place: (paths added, paths that were there already)."""
    for path in remove:
        if path not in signed.targets:
            raise NotFound(f"{path} is not signed.")
    added, unchanged = [], []
    for target in add:
        if target.fleet != fleet:
            raise Invalid(f"{target.path} is not of the fleet {fleet}.")
        new, old = layout.target_file(target), signed.targets.get(target.path)
        if old is None:
            signed.targets[target.path] = new
            added.append(target.path)
        elif old.to_dict() == new.to_dict() and target.path not in remove:
            unchanged.append(target.path)
        else:
            raise Conflict(
                f"{target.path} is signed already, for another image or source. A signed artifact "
                "never changes: use another version."
            )
    for path in remove:
        del signed.targets[path]
    if len(signed.targets) > layout.MAX_TARGETS:
        raise Conflict(
            f"The fleet {fleet} would have {len(signed.targets)} signed artifacts; "
            f"{layout.MAX_TARGETS} is the limit. Withdraw some that are no longer needed."
        )
    return tuple(added), tuple(unchanged)
