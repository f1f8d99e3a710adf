"""What the repository holds and for how long: for `facade trust status`, `doctor` and metrics.

Guarantees: reads the published metadata only; needs no key and no passphrase, and no offline folder.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tuf.api.metadata import Role, Signed

from facade.clock import Clock
from facade.control.signing import layout
from facade.control.signing.keys import OnlineKeys, offline_key_name
from facade.control.signing.pending import Pending
from facade.control.signing.publication import is_published
from facade.control.signing.repository import Current, MetadataRepository, Summary
from facade.errors import FacadeError

OFFLINE_WARNING = timedelta(days=60)
"""How long before its end an offline role is warned about: it takes a ceremony to renew."""


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """One role as published.

    Arguments:
        expires: Unix seconds.
        key_ids, threshold: who may sign, and how many must.
        offline: whether its keys belong on an offline machine.
        keys_at_hand: how many of its keys are on this machine.
        targets: signed artifacts, for a fleet.
        trouble: why none of its online keys can sign, in words.
    """

    name: str
    version: int
    expires: float
    key_ids: tuple[str, ...]
    threshold: int
    offline: bool
    keys_at_hand: int
    targets: int | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class TrustStatus:
    """Every role, top-level ones first, then the fleets."""

    roles: tuple[RoleStatus, ...]
    waiting: str = ""
    """Which change waits for whose signatures, in one sentence."""

    @property
    def offline_keys_at_hand(self) -> bool:
        """Whether an offline key lies on this machine: it should be carried away."""
        return any(role.offline and role.keys_at_hand for role in self.roles)

    def warnings(self, now: float) -> tuple[str, ...]:
        """What somebody should do soon, in sentences.

        Arguments:
            now: Unix seconds.
        """
        lines = [self.waiting] if self.waiting else []
        for role in self.roles:
            days = int((role.expires - now) // 86_400)
            if role.expires <= now:
                lines.append(f"The role {role.name} has expired. {_remedy(role)}")
            elif role.offline and role.expires - now <= OFFLINE_WARNING.total_seconds():
                lines.append(f"The role {role.name} expires in {days} days. {_remedy(role)}")
            if not role.offline and role.keys_at_hand < role.threshold:
                lines.append(f"The role {role.name} cannot be signed anew. {role.trouble}")
        return tuple(lines)


def _remedy(role: RoleStatus) -> str:
    if role.offline:
        return "Renew it with its offline key: facade trust renew"
    return "The control plane signs it anew while it runs."


def trust_status(
    repository: Path | MetadataRepository,
    online: OnlineKeys,
    *,
    offline: Path | None,
    clock: Clock,
) -> TrustStatus:
    """Read the status. Raises Conflict before the first ceremony, Integrity, Unavailable.

    Arguments:
        repository: its folder, or one that knows already what it has verified.
    """
    files = MetadataRepository(repository, clock) if isinstance(repository, Path) else repository
    current = files.current()

    def status(
        name: str, signed: Signed | Summary, role: Role, targets: int | None = None
    ) -> RoleStatus:
        is_offline, trouble = name in layout.OFFLINE, ""
        if is_offline:
            at_hand = sum(
                offline is not None and (offline / offline_key_name(name, key_id)).is_file()
                for key_id in role.keyids
            )
        else:
            at_hand = int(online.has(name, role.keyids))
            trouble = "" if at_hand else _why_not(online, name, role)
        return RoleStatus(
            name=name,
            version=signed.version,
            expires=signed.expires.timestamp(),
            key_ids=tuple(role.keyids),
            threshold=role.threshold,
            offline=is_offline,
            keys_at_hand=at_hand,
            trouble=trouble,
            targets=targets,
        )

    root, delegator = current.root.signed, current.targets.signed
    top: dict[str, Signed] = {
        layout.ROOT: root,
        layout.TARGETS: delegator,
        layout.SNAPSHOT: current.snapshot.signed,
        layout.TIMESTAMP: current.timestamp.signed,
    }
    roles = [status(name, signed, root.roles[name]) for name, signed in top.items()]
    for fleet in current.fleets:
        summary = files.summary(current, fleet)
        role = delegator.get_delegated_role(fleet)
        roles.append(status(fleet, summary, role, summary.targets))
    return TrustStatus(tuple(roles), _waiting(files.folder, current))


def _why_not(online: OnlineKeys, name: str, role: Role) -> str:
    """Why there is no key to sign with, in words: gone, or not fit to be used."""
    try:
        online.signer(name, role.keyids)
    except FacadeError as error:
        return error.message
    return "Its online key cannot be used."  # there after all, a moment later


def _waiting(repository: Path, current: Current) -> str:
    try:
        proposal = Pending(repository).load()
    except FacadeError as error:
        return f"The change that waits for signatures cannot be read: {error.message}"
    if proposal is None or is_published(proposal, current):
        return ""
    missing = "; ".join(str(need) for need in proposal.needs() if need.missing)
    return f"A change waits for signatures ({proposal.purpose}): {missing}."
