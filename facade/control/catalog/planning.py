"""Under which name an image is signed: the decision, apart from any input or output.

Guarantees: a signed path keeps its digest for good, also after it was withdrawn; a tag that moved is
signed beside what it was before; one name stands for one repository at a time. The same question
gets the same answer, so an import that is run again changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from facade.errors import Conflict
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.target import SignedTarget, parse_version

SHORT_DIGEST_CHARS = 12
_MAX_VERSION_CHARS = 128


class Status(StrEnum):
    """What became of a tag (interface.md)."""

    IMPORTED = "imported"
    UNCHANGED = "unchanged"
    MOVED = "moved"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that was walked and is to be signed.

    Arguments:
        tag: the tag it was imported by; None = by digest.
        version: what the operator asked for; None = after the tag.
    """

    fleet: str
    name: str
    version: str | None
    registry: RegistryHost
    repository: Repository
    tag: str | None
    digest: Digest
    length: int
    media_type: str
    platforms: tuple[str, ...] = ()
    referrers: tuple[Digest, ...] = ()

    @property
    def base_version(self) -> str:
        """The version it gets unless the tag moved."""
        return self.version or self.tag or f"sha256-{self.short_digest}"

    @property
    def short_digest(self) -> str:
        """The first hex digits of its digest."""
        return self.digest.hex[:SHORT_DIGEST_CHARS]

    def target(self, version: str) -> SignedTarget:
        """The target to sign. Raises Invalid when the version is none."""
        return SignedTarget(
            fleet=self.fleet,
            name=self.name,
            version=parse_version(version),
            digest=self.digest,
            length=self.length,
            registry=self.registry,
            repository=self.repository,
            media_type=self.media_type,
            reference=self.tag or str(self.digest),
            platforms=self.platforms,
            referrers=self.referrers,
        )


class Remembered(Protocol):
    """`control.catalog.records.ImportRecord`: an import of the same name, withdrawn or not."""

    @property
    def version(self) -> str: ...
    @property
    def registry(self) -> str: ...
    @property
    def repository(self) -> str: ...
    @property
    def reference(self) -> str: ...
    @property
    def digest(self) -> Digest: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. `add` False: it is signed already."""

    status: Status
    target: SignedTarget
    add: bool


def plan(
    candidate: Candidate, signed: Mapping[str, SignedTarget], history: Iterable[Remembered]
) -> Plan:
    """Decide under which path to sign.

    Arguments:
        signed: the fleet's targets by path, with those that are about to be signed.
        history: what was ever imported under the same fleet and name.

    Raises Conflict, saying what to do; Invalid when the version is none.
    """
    same_name = [target for target in signed.values() if target.name == candidate.name]
    for other in same_name:
        if (other.registry, other.repository) != (candidate.registry, candidate.repository):
            raise Conflict(
                f"The name {candidate.name} stands for {other.registry}/{other.repository} in "
                f"the fleet {candidate.fleet}; use --name to give this image another."
            )
    past = tuple(history)
    moved = candidate.tag is not None and _has_moved(candidate, same_name, past)
    version = candidate.base_version
    if candidate.version is None and not _stands(candidate, version, signed, ()):
        if moved or _is_taken(candidate, version, signed, past):
            moved, version = candidate.tag is not None, _beside(candidate)
        elif _stands(candidate, _beside(candidate), signed, past):
            version = _beside(candidate)  # so that the same question gets the same answer
    target = candidate.target(version)
    present = signed.get(target.path)
    if present is not None:
        return Plan(Status.UNCHANGED, _agreeing(candidate, present), add=False)
    if _is_taken(candidate, version, signed, past):
        raise Conflict(
            f"{target.path} stood for another image before it was withdrawn, and never changes; "
            "use another --version."
        )
    return Plan(Status.MOVED if moved else Status.IMPORTED, target, add=True)


def _has_moved(
    candidate: Candidate, same_name: Iterable[SignedTarget], past: Iterable[Remembered]
) -> bool:
    """Whether the tag was imported before, and never with this digest."""
    before = {target.digest for target in same_name if target.reference == candidate.tag} | {
        record.digest
        for record in past
        if record.reference == candidate.tag
        and (record.registry, record.repository)
        == (str(candidate.registry), str(candidate.repository))
    }
    return bool(before) and candidate.digest not in before


def _is_taken(
    candidate: Candidate,
    version: str,
    signed: Mapping[str, SignedTarget],
    past: Iterable[Remembered],
) -> bool:
    """Whether the path stands, or stood, for another digest."""
    present = signed.get(f"{candidate.fleet}/{candidate.name}/{version}")
    if present is not None:
        return present.digest != candidate.digest
    return any(record.version == version and record.digest != candidate.digest for record in past)


def _stands(
    candidate: Candidate,
    version: str,
    signed: Mapping[str, SignedTarget],
    past: Iterable[Remembered],
) -> bool:
    """Whether the path stands, or stood, for this very digest."""
    present = signed.get(f"{candidate.fleet}/{candidate.name}/{version}")
    if present is not None:
        return present.digest == candidate.digest
    return any(record.version == version and record.digest == candidate.digest for record in past)


def _beside(candidate: Candidate) -> str:
    """`<tag>-<12 hex>`; a tag of full length is shortened for it."""
    room = _MAX_VERSION_CHARS - SHORT_DIGEST_CHARS - 1
    return f"{candidate.base_version[:room]}-{candidate.short_digest}"


def _agreeing(candidate: Candidate, present: SignedTarget) -> SignedTarget:
    """The target that is there, if it is what the candidate would be."""
    if present.digest != candidate.digest:
        raise Conflict(
            f"{present.path} is signed for another image, and never changes; use another --version."
        )
    if set(present.platforms) != set(candidate.platforms):
        raise Conflict(
            f"{present.path} is signed for {', '.join(present.platforms) or 'all platforms'}, and "
            "never changes; use another --version for other platforms."
        )
    if not set(candidate.referrers) <= set(present.referrers):
        raise Conflict(
            f"{present.path} is signed without some of the signatures that refer to the image now, "
            "and never changes; use another --version."
        )
    return present
