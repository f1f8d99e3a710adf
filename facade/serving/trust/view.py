"""The verified state of the signed metadata, as immutable values. Pure.

Guarantees: a view never changes after it was made, so a decision reads one consistent state; a
role's expiry is checked against the time the caller gives, on every call. Does not verify any
signature: `chain` did that before it made the view.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from facade.errors import FacadeError, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.target import SignedTarget

Place = tuple[RegistryHost, Repository]
"""Where an image lives. Digests are only ever looked up inside one."""

RETRY_SECONDS = 30.0
"""What `Retry-After` says when metadata has to be renewed first."""
_NUMBERS = re.compile(r"(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FleetView:
    """One fleet's verified role.

    Arguments:
        version, expires: of the role file; Unix seconds.
        by_place: every target, newest version first (by its numbers: v10 is newer than v9).
        by_digest: the targets that name this digest as their top manifest, there.
        by_path: for people and for the device client's target downloads.
        problems: targets that were dropped, in words.
        anchor: what the role was verified against (snapshot entry, delegation, keys). A later
            refresh that finds the same anchor need not read the role again.
    """

    fleet: str
    version: int
    expires: float
    by_place: Mapping[Place, tuple[SignedTarget, ...]]
    by_digest: Mapping[tuple[RegistryHost, Repository, Digest], tuple[SignedTarget, ...]]
    by_path: Mapping[str, SignedTarget]
    problems: tuple[str, ...] = ()
    anchor: str = ""

    @classmethod
    def build(
        cls,
        fleet: str,
        targets: Iterable[SignedTarget],
        *,
        version: int,
        expires: float,
        problems: tuple[str, ...] = (),
        anchor: str = "",
        previous: "FleetView | None" = None,
    ) -> "FleetView":
        """Index `targets`.

        What equals its counterpart in `previous` is that very object again, so that holders of
        something derived from it (`decision`) see by identity what has not changed.
        """
        before = previous.by_path if previous else {}
        by_path = {}
        for target in targets:
            known = before.get(target.path)
            by_path[target.path] = known if known == target else target
        places: dict[Place, list[SignedTarget]] = {}
        digests: dict[tuple[RegistryHost, Repository, Digest], tuple[SignedTarget, ...]] = {}
        for target in sorted(by_path.values(), key=newest_last, reverse=True):
            place = (target.registry, target.repository)
            places.setdefault(place, []).append(target)
            key = (*place, target.digest)
            digests[key] = (*digests.get(key, ()), target)
        by_place = {}
        for place, listed in places.items():
            old = previous.by_place.get(place) if previous else None
            by_place[place] = old if old == tuple(listed) else tuple(listed)
        return cls(fleet, version, expires, by_place, digests, by_path, problems, anchor)


def newest_last(target: SignedTarget) -> tuple[tuple[str | int, ...], str]:
    """Sort key: by the version's numbers (metadata holds no dates), then by name."""
    parts = _NUMBERS.split(target.version)  # text and numbers alternate, so positions compare
    return tuple(int(part) if part.isdigit() else part for part in parts), target.name


@dataclass(frozen=True, slots=True)
class SignedView:
    """Everything verified, at one moment.

    Arguments:
        generation: counts up with every refresh that succeeded, also when nothing changed.
        versions, expires: by role: root, timestamp, snapshot, targets and each loaded fleet.
        known_fleets: those that targets.json delegates to as it should.
        fleets: those loaded and verified.
        failed: fleets that were asked for and could not be verified; served nothing.
        problems: what people should look at, in words.
    """

    generation: int
    versions: Mapping[str, int]
    expires: Mapping[str, float]
    known_fleets: frozenset[str]
    fleets: Mapping[str, FleetView] = field(default_factory=dict)
    failed: Mapping[str, FacadeError] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def check_fresh(self, fleet: str | None, now: float) -> None:
        """Raise Unavailable (METADATA_EXPIRED) when a role that serving needs has expired.

        Arguments:
            fleet: whose role counts besides the top-level ones; None = none.
            now: Unix seconds.
        """
        for role in ("timestamp", "snapshot", "targets", "root"):
            if self.expires[role] <= now:
                raise expired(role)
        loaded = self.fleets.get(fleet) if fleet is not None else None
        if loaded is not None and loaded.expires <= now:
            raise expired("fleet")

    def targets(
        self, fleet: str, host: RegistryHost, repository: Repository, digest: Digest
    ) -> tuple[SignedTarget, ...]:
        """The fleet's targets with this digest as their top manifest, in that repository."""
        loaded = self.fleets.get(fleet)
        return () if loaded is None else loaded.by_digest.get((host, repository, digest), ())


def expired(role: str) -> Unavailable:
    """The error for an expired role; `role` is a top-level role or "fleet"."""
    return Unavailable(
        f"The signed metadata ({role} role) has expired. Nothing is served on its word until it "
        "has been signed again.",
        reason=Reason.METADATA_EXPIRED,
        retry_after=RETRY_SECONDS,
    )
