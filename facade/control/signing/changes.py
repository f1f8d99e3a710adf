"""The next root and the next targets, worked out from the present ones. Pure.

Guarantees: a function that raises has changed nothing; a key signs for one role only, and one that was
dropped (`used`) never comes back; thresholds stay within the number of keys.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tuf.api.metadata import Delegations, Key, Role, Root, Targets

from facade.clock import Clock
from facade.control.signing import layout
from facade.device import parse_fleet
from facade.errors import Conflict, Invalid, NotFound


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who signs for a top-level role, and how many of them must."""

    keys: Sequence[Key]
    threshold: int = 1

    def check(self, role: str) -> None:
        """Raises Invalid for an impossible threshold, Conflict for a key that is named twice."""
        if not 1 <= self.threshold <= len(self.keys):
            raise Invalid(
                f"The {role} threshold must lie between 1 and the number of {role} keys, "
                f"{len(self.keys)}."
            )
        if len({key.keyid for key in self.keys}) != len(self.keys):
            raise Conflict(f"The same key is named twice for {role}.")


def first_root(roles: Mapping[str, RoleKeys], clock: Clock) -> Root:
    """Version 1 of root. Raises Invalid, Conflict."""
    root = Root(
        consistent_snapshot=True,
        expires=layout.expiry(layout.ROOT, clock),
        roles={role: Role([], 1) for role in layout.TOP_LEVEL},  # tuf's own come in no order
    )
    for role, wanted in roles.items():
        wanted.check(role)
        for key in wanted.keys:
            _check_free(root, key, role, ())
            root.add_key(key, role)
        root.roles[role].threshold = wanted.threshold
    return root


def next_root(root: Root, clock: Clock) -> Root:
    """The next version, otherwise the same."""
    following = copy.deepcopy(root)
    following.version += 1
    following.expires = layout.expiry(layout.ROOT, clock)
    return following


def next_targets(targets: Targets | None, clock: Clock) -> Targets:
    """The next version, otherwise the same; the first one if there is none."""
    following = Targets() if targets is None else copy.deepcopy(targets)
    if targets is not None:
        following.version += 1
    following.expires = layout.expiry(layout.TARGETS, clock)
    if following.delegations is None:
        following.delegations = Delegations(keys={}, roles={})
    return following


def set_keys(root: Root, role: str, wanted: RoleKeys, used: Collection[str]) -> None:
    """Replace the keys of a top-level role.

    Arguments:
        used: key ids that were named at any time.

    Raises Invalid for a threshold, Conflict for a key of another role or one that was dropped.
    """
    wanted.check(role)
    before = set(root.roles[role].keyids)
    for key in wanted.keys:
        if key.keyid not in before:
            _check_free(root, key, role, used)
    for key_id in before - {key.keyid for key in wanted.keys}:
        root.revoke_key(key_id, role)
    for key in wanted.keys:
        root.add_key(key, role)
    root.roles[role].threshold = wanted.threshold


def set_fleet(targets: Targets, fleet: str, key: Key, used: Collection[str]) -> None:
    """Delegate to a fleet, or give it another key. Raises Conflict for a key that was dropped."""
    parse_fleet(fleet)
    delegations = _delegations(targets)
    assert delegations.roles is not None
    if key.keyid in used or key.keyid in delegations.keys:
        raise Conflict(_USED.format(key=key.keyid))
    drop_fleet(targets, fleet, missing_ok=True)
    delegations.roles[fleet] = layout.delegation(fleet, key)
    targets.add_key(key, fleet)


def drop_fleet(targets: Targets, fleet: str, *, missing_ok: bool = False) -> None:
    """Take a fleet's delegation away and note its key as revoked. Raises NotFound."""
    delegations = _delegations(targets)
    assert delegations.roles is not None
    if fleet not in delegations.roles:
        if missing_ok:
            return
        raise NotFound(f"There is no fleet {fleet}.")
    revoked = list(layout.revoked_keys(targets))
    for key_id in tuple(delegations.roles[fleet].keyids):
        targets.revoke_key(key_id, fleet)
        revoked.append(key_id)
    targets.unrecognized_fields[layout.REVOKED] = revoked
    del delegations.roles[fleet]


_USED = (
    "The key {key} was used here before, or is another role's. A key that was dropped never comes "
    "back: make a new one."
)


def _check_free(root: Root, key: Key, role: str, used: Collection[str]) -> None:
    if key.keyid in used or key.keyid in root.keys:
        raise Conflict(_USED.format(key=key.keyid))


def _delegations(targets: Targets) -> Delegations:
    if targets.delegations is None or targets.delegations.roles is None:
        raise Invalid("The targets role does not delegate to fleets by name.")
    return targets.delegations
