"""How roles are laid out: lifetimes, limits, file names, delegations (trust.md's table).

Pure. Guarantees: `parse_file_name(file_name(role, version))` gives back both, so that cleaning up
never takes one role's file for another's.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from tuf.api.metadata import DelegatedRole, Key, TargetFile, Targets

from facade.clock import Clock, utc
from facade.device import parse_fleet
from facade.errors import Invalid
from facade.target import SignedTarget

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
TOP_LEVEL = (ROOT, TARGETS, SNAPSHOT, TIMESTAMP)
OFFLINE = (ROOT, TARGETS)

OFFLINE_LIFETIME = timedelta(days=365)
FLEET_LIFETIME = timedelta(days=90)
SNAPSHOT_LIFETIME = timedelta(days=7)
TIMESTAMP_LIFETIME = timedelta(days=1)

MAX_TARGETS = 10_000
"""Signed artifacts in one fleet's role."""
MAX_ROLE_BYTES = 4_900_000
"""Serialized bytes of one role: a stock client reads at most 5,000,000 (tuf's UpdaterConfig)."""
RETENTION_SECONDS = 24 * 3600
"""How long a superseded file stays, for clients in the middle of a refresh."""

REVOKED = "x-facade-revoked-keys"
"""Where the signed targets role lists the fleets' former keys, so that none comes back by name."""

_FILE_NAME = re.compile(r"([1-9][0-9]{0,17})\.(.+)\.json", re.ASCII)


def lifetime(role: str) -> timedelta:
    """How long a role's metadata is valid once signed."""
    if role in OFFLINE:
        return OFFLINE_LIFETIME
    return {SNAPSHOT: SNAPSHOT_LIFETIME, TIMESTAMP: TIMESTAMP_LIFETIME}.get(role, FLEET_LIFETIME)


def expiry(role: str, clock: Clock) -> datetime:
    """When metadata of `role` signed now expires (whole seconds, TUF specification 4.2.1)."""
    return utc(clock).replace(microsecond=0) + lifetime(role)


def file_name(role: str, version: int) -> str:
    """The consistent-snapshot name; timestamp.json alone has no version (TUF 1.0, 6)."""
    return f"{role}.json" if role == TIMESTAMP else f"{version}.{role}.json"


def parse_file_name(name: str) -> tuple[str, int] | None:
    """The (role, version) that `file_name` made this name of, or None."""
    match = _FILE_NAME.fullmatch(name)
    return (match[2], int(match[1])) if match else None


def delegation(fleet: str, key: Key) -> DelegatedRole:
    """A fleet's slice of names: `<fleet>/*/*`, and nobody else is asked about them."""
    return DelegatedRole(
        name=fleet, keyids=[key.keyid], threshold=1, terminating=True, paths=[f"{fleet}/*/*"]
    )


def delegated_fleets(targets: Targets) -> tuple[str, ...]:
    """The fleets that `targets` delegates to, in order of their names."""
    roles = targets.delegations.roles if targets.delegations else None
    return tuple(sorted(roles or ()))


def revoked_keys(targets: Targets) -> tuple[str, ...]:
    """Key ids that once were some fleet's and no longer are."""
    listed = targets.unrecognized_fields.get(REVOKED, [])
    return tuple(str(key_id) for key_id in listed) if isinstance(listed, list) else ()


def delegated_keys(targets: Targets, fleet: str) -> frozenset[str]:
    """The key ids that sign for `fleet`; none when there is no such fleet."""
    roles = targets.delegations.roles if targets.delegations else None
    role = (roles or {}).get(fleet)
    return frozenset(role.keyids) if role else frozenset()


def check_delegations(targets: Targets) -> None:
    """That every delegation is laid out as ours are. Raises Invalid, saying which is not.

    A holder is asked to sign what another machine prepared: it must not be able to slip in more
    than a fleet's own names.
    """
    if targets.targets:
        raise Invalid("The targets role signs artifacts itself; it may only delegate to fleets.")
    delegations = targets.delegations
    if delegations is None:
        return
    if delegations.roles is None:
        raise Invalid("The targets role delegates to hash bins; fleets are delegated by name.")
    for name, role in delegations.roles.items():
        parse_fleet(name)
        if role.paths != [f"{name}/*/*"] or not role.terminating or role.threshold < 1:
            raise Invalid(f"The delegation to {name} is not for {name}/*/* alone, terminating.")
        if role.threshold > len(set(role.keyids) & delegations.keys.keys()):
            raise Invalid(f"The delegation to {name} can be signed by nobody.")


def target_file(target: SignedTarget) -> TargetFile:
    """The TUF form of a signed target. Raises Invalid for a digest that is not SHA-256."""
    if target.digest.algorithm != "sha256":
        raise Invalid(f"{target.path}: only images with a sha256 digest can be signed.")
    return TargetFile(
        length=target.length,
        hashes={"sha256": target.digest.hex},
        path=target.path,
        unrecognized_fields={"custom": target.custom},
    )


def digests(targets: Targets, paths: Iterable[str]) -> dict[str, str]:
    """The SHA-256 in hex of the targets at `paths`, those that are there."""
    return {
        path: targets.targets[path].hashes["sha256"] for path in paths if path in targets.targets
    }


def signed_target(path: str, target: TargetFile) -> SignedTarget:
    """The value of a TUF target. Raises Invalid."""
    return SignedTarget.parse(
        path, length=target.length, hashes=target.hashes, custom=target.custom
    )
