"""The ceremonies that need offline keys: the first signing, fleets, rotation, renewal.

Guarantees: each is published at once when the offline keys at hand meet the thresholds, and otherwise
waits, for clients invisible, until carried files have brought enough signatures; each can be run
again after a crash; private offline keys reach the disk encrypted only. Every other use of the
repository works with the offline folder absent. Does not pin the root for anybody.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata, Root, Targets

from facade.clock import Clock
from facade.control.signing import changes, layout
from facade.control.signing.changes import RoleKeys
from facade.control.signing.draft import check_own
from facade.control.signing.keys import OfflineKeys, OnlineKeys
from facade.control.signing.outcome import Elsewhere, Outcome, delegate_command
from facade.control.signing.pending import Pending
from facade.control.signing.proposal import Proposal
from facade.control.signing.publication import is_published, publish
from facade.control.signing.repository import Current, MetadataRepository
from facade.device import parse_fleet
from facade.errors import Conflict, Integrity, Invalid, NotFound


class Ceremony:
    """On one repository. Every method takes its lock.

    Arguments:
        online: keys of snapshot, timestamp and the fleets.
        offline: keys of root and targets that are at hand on this machine, if any.
    """

    def __init__(
        self, repository: Path, online: OnlineKeys, offline: OfflineKeys, clock: Clock
    ) -> None:
        self.files = MetadataRepository(repository, clock)
        self._pending = Pending(repository)
        self._online = online
        self.offline = offline
        self._clock = clock

    def pending(self) -> Proposal | None:
        """What waits for signatures, if anything."""
        return self._pending.load()

    def initialise(
        self, roles: Mapping[str, RoleKeys], fleets: Sequence[str], where: Mapping[str, Elsewhere]
    ) -> Outcome:
        """The first ceremony.

        Arguments:
            roles: keys of root and targets.
            fleets: delegated from the start.
            where: by role, online keys that lie elsewhere; the others are made here.

        Raises Conflict when there is a repository already, Invalid for a name or a threshold.
        """
        names = [parse_fleet(fleet) for fleet in dict.fromkeys(fleets)]
        for role, wanted in roles.items():
            wanted.check(role)
        with self.files.lock():
            self.check_new()
            online = {
                role: self._adopt(role, where) or self._online.make(role).public_key
                for role in (layout.SNAPSHOT, layout.TIMESTAMP, *names)
            }
            top = {role: RoleKeys([online[role]]) for role in (layout.SNAPSHOT, layout.TIMESTAMP)}
            root = changes.first_root({**roles, **top}, self._clock)
            targets = changes.next_targets(None, self._clock)
            for fleet in names:
                changes.set_fleet(targets, fleet, online[fleet], root.keys)
            return self._propose("first ceremony", None, root, targets)

    def check_new(self) -> None:
        """Raises Conflict when a first ceremony is over, or under way."""
        if self.files.exists:
            raise Conflict(f"{self.files.folder} holds a signed repository already.")
        self._check_nothing_waits()

    def delegate(
        self, fleets: Sequence[str], where: Mapping[str, Elsewhere], *, wait: bool = True
    ) -> Outcome:
        """Delegate to fleets, several ahead if wished; those that are delegated already stay.

        Arguments:
            wait: let the change wait when offline keys are missing, instead of Conflict.
        """
        names = [parse_fleet(fleet) for fleet in dict.fromkeys(fleets)]
        with self.files.lock():
            current = self._begin()
            new = [name for name in names if name not in current.fleets]
            if not new:
                return Outcome(None)
            if not wait:
                self._check_targets_keys(current, new)
            targets = changes.next_targets(current.targets.signed, self._clock)
            used = self.files.key_ids_ever()
            for fleet in new:
                changes.set_fleet(targets, fleet, self._new_online(fleet, where), used)
            return self._propose(f"delegate to {', '.join(new)}", current, None, targets)

    def remove(self, fleets: Sequence[str]) -> Outcome:
        """Drop fleets: nothing more is served to them. Raises NotFound for an unknown one."""
        with self.files.lock():
            current = self._begin()
            targets = changes.next_targets(current.targets.signed, self._clock)
            for fleet in dict.fromkeys(fleets):
                changes.drop_fleet(targets, fleet)
            return self._propose(f"remove {', '.join(fleets)}", current, None, targets)

    def renew(self, roles: Sequence[str]) -> Outcome:
        """Sign root, targets or both as they are, for another year. Raises Invalid for others."""
        if not roles or not set(roles) <= set(layout.OFFLINE):
            raise Invalid("Only root and targets are renewed so; the others renew themselves.")
        with self.files.lock():
            current = self._begin()
            root = targets = None
            if layout.ROOT in roles:
                root = changes.next_root(current.root.signed, self._clock)
            if layout.TARGETS in roles:
                targets = changes.next_targets(current.targets.signed, self._clock)
            return self._propose(f"renew {' and '.join(roles)}", current, root, targets)

    def rotate(
        self,
        roles: Sequence[str],
        where: Mapping[str, Elsewhere],
        *,
        add: Sequence[Key] = (),
        drop: Sequence[str] = (),
        threshold: int | None = None,
        old_key_lost: bool = False,
    ) -> Outcome:
        """Give roles other keys: root, targets, snapshot, timestamp, or fleets.

        Arguments:
            add, drop: public keys to add and (starts of) key ids to drop, for root or targets;
                without them every key of the role that is at hand is replaced by a new one.
            threshold: for root or targets; None = as before.

        Raises NotFound for an unknown role, Conflict, Invalid.
        """
        if (add or drop or threshold) and (len(roles) != 1 or roles[0] not in layout.OFFLINE):
            raise Invalid("Keys and thresholds are named for one role at a time: root or targets.")
        with self.files.lock():
            current = self._begin()
            used = self.files.key_ids_ever()
            unknown = set(roles) - set(layout.TOP_LEVEL) - set(current.fleets)
            if unknown or not roles:
                raise NotFound(f"There is no role {', '.join(sorted(unknown)) or 'to rotate'}.")
            root = targets = None
            if set(roles) & set(layout.TOP_LEVEL):
                root = changes.next_root(current.root.signed, self._clock)
            if set(roles) - {layout.ROOT, layout.SNAPSHOT, layout.TIMESTAMP}:
                targets = changes.next_targets(current.targets.signed, self._clock)
            for role in dict.fromkeys(roles):
                if role in layout.OFFLINE and root is not None:
                    wanted = self._replaced(root, role, add, drop, threshold)
                    changes.set_keys(root, role, wanted, used)
                elif role in layout.TOP_LEVEL and root is not None:
                    wanted = RoleKeys([self._new_online(role, where)])
                    changes.set_keys(root, role, wanted, used)
                elif targets is not None:
                    changes.set_fleet(targets, role, self._new_online(role, where), used)
            purpose = f"rotate {', '.join(roles)}"
            return self._propose(purpose, current, root, targets, old_key_lost=old_key_lost)

    def take_in(self, carried: Proposal, *, old_key_lost: bool = False) -> Outcome:
        """Take the signatures of a carried file; publish once the thresholds are met.

        Raises Conflict when it is another change than the one that waits here.
        """
        with self.files.lock():
            waiting = self._pending.load()
            merged = carried if waiting is None else waiting.merged(carried)
            return self._conclude(merged, old_key_lost=old_key_lost)

    def discard(self) -> bool:
        """Forget the change that waits. Returns whether there was one."""
        with self.files.lock():
            return self._pending.discard()

    def _begin(self) -> Current:
        current = self.files.current()
        self._check_nothing_waits(current)
        return current

    def _check_nothing_waits(self, current: Current | None = None) -> None:
        waiting = self._pending.load()
        if waiting is not None and is_published(waiting, current):
            self._pending.discard()  # whoever published it died before the last step
        elif waiting is not None:
            raise Conflict(
                f"A change waits for signatures already ({waiting.purpose}). Finish it with: "
                "facade trust import FILE, or give it up with: facade trust discard"
            )

    def _propose(
        self,
        purpose: str,
        current: Current | None,
        root: Root | None,
        targets: Targets | None,
        *,
        old_key_lost: bool = False,
    ) -> Outcome:
        proposal = Proposal(
            purpose,
            Metadata(root) if root is not None else None,
            Metadata(targets) if targets is not None else None,
            current.root if current else None,
            current.targets if current else None,
        )
        for role in layout.OFFLINE:
            proposal = proposal.signed_with(role, self._at_hand(role, proposal, current))
        return self._conclude(proposal, old_key_lost=old_key_lost)

    def _at_hand(self, role: str, proposal: Proposal, current: Current | None) -> Sequence[Signer]:
        """The offline keys here that may sign unseen: those that signed what is published.

        A holder whose key did not sign the present version signs a carried file, after reading it.
        """
        signers = self.offline.signers(role, proposal.key_ids(role))
        if current is None or not signers:
            return signers
        published = current.root if role == layout.ROOT else current.targets
        try:
            check_own(role, published, signers)
        except Integrity:
            if len(current.root.signed.roles[role].keyids) == 1:
                raise
            return ()
        return signers

    def _conclude(self, proposal: Proposal, *, old_key_lost: bool) -> Outcome:
        if not proposal.is_complete:
            self._pending.save(proposal)
            return Outcome(proposal)
        versions = publish(
            self.files, self._online, self._clock, proposal, old_key_lost=old_key_lost
        )
        self._pending.discard()
        return Outcome(proposal, versions)

    def _replaced(
        self,
        root: Root,
        role: str,
        add: Sequence[Key],
        drop: Sequence[str],
        threshold: int | None,
    ) -> RoleKeys:
        before = root.roles[role]
        dropped = {key_id for key_id in before.keyids if any(map(key_id.startswith, drop))}
        if len(dropped) != len(drop):
            raise NotFound(f"Not every key to drop is a key of {role}: {', '.join(drop)}.")
        added = list(add)
        if not add and not drop and threshold is None:
            here = self.offline.signers(role, before.keyids)
            if not here:
                raise Conflict(
                    f"No {role} key is at hand to be replaced. Name keys made elsewhere: "
                    "--add FILE --drop KEYID"
                )
            dropped = {signer.public_key.keyid for signer in here}
            added = [signer.public_key for signer in self.offline.add(role, len(here))]
        kept = [root.keys[key_id] for key_id in before.keyids if key_id not in dropped]
        return RoleKeys([*kept, *added], threshold or before.threshold)

    def _new_online(self, role: str, where: Mapping[str, Elsewhere]) -> Key:
        return self._adopt(role, where) or self._online.add(role).public_key

    def _adopt(self, role: str, where: Mapping[str, Elsewhere]) -> Key | None:
        found = where.get(role)
        return self._online.adopt(role, found.uri, found.public).public_key if found else None

    def _check_targets_keys(self, current: Current, new: Sequence[str]) -> None:
        role = current.root.signed.roles[layout.TARGETS]
        if len(self.offline.signers(layout.TARGETS, role.keyids)) < role.threshold:
            command = delegate_command(self.files.folder, self._online.folder, new)
            raise Conflict(
                f"The targets key is not in {self.offline.folder}. Run, where it is at hand: "
                f"{command}"
            )
