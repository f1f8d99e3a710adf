"""A change that offline keys have to sign: the next root, the next targets, and who has signed so far.

Guarantees: what is read from a carried file was checked: its base is soundly signed, versions follow
on, delegations are laid out as ours are; a signature counts only if it verifies; merging takes
signatures of the very same content only. `describe` is worked out from the content, never taken
from the file. Does not know whether its base is the present one: publication does.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Key, Metadata, Root, Targets, VerificationResult
from tuf.api.serialization import DeserializationError

from facade.control.signing import layout
from facade.control.signing.describe import describe
from facade.errors import Conflict, Denied, Integrity, Invalid

FORMAT = "facade-ceremony/1"
MAX_BYTES = 16_000_000
_T = TypeVar("_T", Root, Targets)


@dataclass(frozen=True, slots=True)
class Need:
    """Signatures that a role needs.

    Arguments:
        by: whose keys, in words.
        signed, unsigned: key ids.
    """

    role: str
    by: str
    threshold: int
    signed: tuple[str, ...]
    unsigned: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many signatures still have to come."""
        return max(0, self.threshold - len(self.signed))

    def __str__(self) -> str:
        """One line for people."""
        who = "; still to sign: " + ", ".join(self.unsigned) if self.missing else ""
        return f"{self.role} by {self.by}: {len(self.signed)} of {self.threshold}{who}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """See the module.

    Arguments:
        purpose: what for, in words.
        root, targets: the next versions; None = stays.
        base_root, base_targets: what they follow on; None in the first ceremony.
    """

    purpose: str
    root: Metadata[Root] | None
    targets: Metadata[Targets] | None
    base_root: Metadata[Root] | None
    base_targets: Metadata[Targets] | None

    @property
    def top(self) -> Root:
        """The root that will be the newest."""
        newest = self.root or self.base_root
        assert newest is not None  # checked when read, and by whoever builds one
        return newest.signed

    def needs(self) -> tuple[Need, ...]:
        """Who has signed and who has to: the new root needs the old keys and the new ones."""
        found = []
        if self.root is not None:
            root, data = self.root.signed, self.root.signed_bytes
            own = root.get_verification_result(layout.ROOT, data, self.root.signatures)
            if self.base_root is not None:
                old = self.base_root.signed
                result = old.get_verification_result(layout.ROOT, data, self.root.signatures)
                if not _same(result, own):
                    found.append(_need(layout.ROOT, f"the keys of root {old.version}", result))
            found.append(_need(layout.ROOT, f"the keys of root {root.version}", own))
        if self.targets is not None:
            result = self.top.get_verification_result(
                layout.TARGETS, self.targets.signed_bytes, self.targets.signatures
            )
            found.append(_need(layout.TARGETS, "the targets keys", result))
        return tuple(found)

    @property
    def is_complete(self) -> bool:
        """Whether every threshold is met."""
        return not any(need.missing for need in self.needs())

    def key_ids(self, role: str) -> frozenset[str]:
        """Whose signatures are of use. The former targets key's too: for clients in between."""
        roots = [root.signed for root in (self.base_root, self.root) if root is not None]
        if (self.root if role == layout.ROOT else self.targets) is None:
            return frozenset()
        return frozenset(key_id for root in roots for key_id in root.roles[role].keyids)

    def signed_with(self, role: str, signers: Iterable[Signer]) -> "Proposal":
        """With the signatures of those signers that are of use. Raises Conflict."""
        metadata = _copy(self.root if role == layout.ROOT else self.targets)
        if metadata is None:
            return self
        useful = self.key_ids(role)
        try:
            for signer in signers:
                if signer.public_key.keyid in useful:
                    metadata.sign(signer, append=True)
        except RepositoryError as error:
            raise Conflict(f"A key does not sign for the role {role}: {error}.") from error
        return self._with(role, metadata)

    def merged(self, other: "Proposal") -> "Proposal":
        """With the signatures of `other` as well.

        Raises Conflict when that is another change, Denied when a signature does not verify.
        """
        merged = self
        for role in layout.OFFLINE:
            mine = _copy(self.root if role == layout.ROOT else self.targets)
            theirs = other.root if role == layout.ROOT else other.targets
            if mine is None and theirs is None:
                continue
            if mine is None or theirs is None or mine.signed_bytes != theirs.signed_bytes:
                raise Conflict("That file holds another change than the one that waits here.")
            for key_id, signature in theirs.signatures.items():
                if key_id in self.key_ids(role):
                    _verify(merged._key(role, key_id), signature, mine.signed_bytes, role)
                    mine.signatures[key_id] = signature
            merged = merged._with(role, mine)
        return merged

    def signatures(self) -> Mapping[str, tuple[str, ...]]:
        """By role, the ids of the keys that have signed, whether they are of use or not."""
        present = {layout.ROOT: self.root, layout.TARGETS: self.targets}
        return {r: tuple(m.signatures) for r, m in present.items() if m is not None}

    def follows(self, root: bytes) -> bool:
        """Whether this follows on that root.json."""
        try:
            known = Metadata[Root].from_bytes(root)
        except (DeserializationError, ValueError):
            return False
        base = self.base_root
        return base is not None and base.signed_bytes == known.signed_bytes

    def describe(self) -> Sequence[str]:
        """What would change, in sentences."""
        return describe(
            self.base_root.signed if self.base_root else None,
            self.root.signed if self.root else None,
            self.base_targets.signed if self.base_targets else None,
            self.targets.signed if self.targets else None,
        )

    def to_bytes(self) -> bytes:
        """The carried file."""
        content = {
            "format": FORMAT,
            "purpose": self.purpose,
            "base": {"root": _dump(self.base_root), "targets": _dump(self.base_targets)},
            "root": _dump(self.root),
            "targets": _dump(self.targets),
        }
        return json.dumps(content, indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Proposal":
        """Read a carried file. Raises Invalid, Integrity for a base that is not soundly signed."""
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise Invalid(f"The carried file is of another format than {FORMAT}.")
            made = cls(
                purpose=str(content["purpose"]),
                root=_load(Root, content["root"]),
                targets=_load(Targets, content["targets"]),
                base_root=_load(Root, content["base"]["root"]),
                base_targets=_load(Targets, content["base"]["targets"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, DeserializationError) as error:
            raise Invalid("That is no carried file of a ceremony, or a damaged one.") from error
        made._check()
        return made

    def _check(self) -> None:
        if self.root is None and self.targets is None:
            raise Invalid("The carried file holds nothing to sign.")
        base_root, base_targets = self.base_root, self.base_targets
        if (base_root is None) != (base_targets is None):
            raise Invalid("The carried file holds half of what it follows on.")
        if base_root is None and (self.root is None or self.targets is None):
            raise Invalid("A first ceremony needs both root and targets.")
        if base_root is not None and base_targets is not None:
            _check_base(base_root, base_targets)
        for what, following, base in (
            ("root", self.root, base_root),
            ("targets", self.targets, base_targets),
        ):
            if following is not None and base is not None:
                _check_follows(what, following.signed.version, base.signed.version)
        if self.root is not None and not self.root.signed.consistent_snapshot:
            raise Invalid("The new root gives up consistent snapshots.")
        if self.targets is not None:
            layout.check_delegations(self.targets.signed)

    def _with(self, role: str, metadata: Any) -> "Proposal":
        if role == layout.ROOT:
            return replace(self, root=metadata)
        return replace(self, targets=metadata)

    def _key(self, role: str, key_id: str) -> Key:
        for root in (self.root, self.base_root):
            if root is not None and key_id in root.signed.keys:
                return root.signed.keys[key_id]
        raise Denied(f"The key {key_id} does not sign for the role {role}.")


def _check_base(root: Metadata[Root], targets: Metadata[Targets]) -> None:
    try:
        root.signed.verify_delegate(layout.ROOT, root.signed_bytes, root.signatures)
        root.signed.verify_delegate(layout.TARGETS, targets.signed_bytes, targets.signatures)
    except (RepositoryError, ValueError) as error:
        raise Integrity(f"What the carried file follows on is not sound: {error}.") from error


def _check_follows(what: str, version: int, base: int) -> None:
    if version != base + 1:
        raise Invalid(f"The carried {what} is version {version}, after version {base}.")


def _verify(key: Key, signature: Any, data: bytes, role: str) -> None:
    try:
        key.verify_signature(signature, data)
    except UnverifiedSignatureError as error:
        raise Denied(f"The signature by {key.keyid} for the role {role} is wrong.") from error


def _need(role: str, by: str, result: VerificationResult) -> Need:
    return Need(role, by, result.threshold, tuple(result.signed), tuple(result.unsigned))


def _same(one: VerificationResult, other: VerificationResult) -> bool:
    keys = [{*result.signed, *result.unsigned} for result in (one, other)]
    return keys[0] == keys[1] and one.threshold == other.threshold


def _dump(metadata: Metadata[Any] | None) -> Mapping[str, Any] | None:
    return None if metadata is None else metadata.to_dict()


def _load(kind: type[_T], content: Any) -> Metadata[_T] | None:
    if content is None:
        return None
    metadata: Metadata[_T] = Metadata.from_dict(content)
    if not isinstance(metadata.signed, kind):
        raise Invalid(f"The carried file holds {metadata.signed.type} where {kind.type} belongs.")
    return metadata


def _copy(metadata: Metadata[Any] | None) -> Metadata[Any] | None:
    """So that signing one proposal changes no other."""
    return copy.deepcopy(metadata)
