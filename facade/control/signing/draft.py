"""The next state of a repository, built in memory and published in one go.

Guarantees: every changed role gets the next version and a fresh expiry; snapshot lists each with its
length and hash and never loses a line (a client refuses a snapshot that lost one); the keys that
sign are those that the delegating metadata names. Nothing is visible before `publish`.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import structlog
from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError
from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import SerializationError

from facade.clock import Clock
from facade.control.signing import layout
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.repository import Current, MetadataRepository
from facade.errors import Conflict, FacadeError, Integrity

_T = TypeVar("_T", Root, Timestamp, Snapshot, Targets)
log = structlog.get_logger(__name__)


class Draft:
    """What will be published next. Made and published under the repository's lock.

    Raises Integrity when the current snapshot or timestamp was not signed by our keys.

    Arguments:
        root: names the keys of the top-level roles, once this is published.
        current: what is published; None in the first ceremony.
        lost: the former key of a role may be gone; then its last signature vouches for nothing.
        ahead: how far version numbers go up, of what is not published yet.
    """

    def __init__(
        self,
        repository: MetadataRepository,
        keys: OnlineKeys,
        clock: Clock,
        *,
        root: Root,
        current: Current | None,
        lost: bool = False,
        ahead: int = 1,
    ) -> None:
        self._repository = repository
        self._keys = keys
        self._clock = clock
        self._root = root
        if current is not None:
            for role, published in (
                (layout.SNAPSHOT, current.snapshot),
                (layout.TIMESTAMP, current.timestamp),
            ):
                if lost and not keys.has(role, current.root.signed.roles[role].keyids):
                    continue
                check_own(role, published, keys.signers(role) or [keys.signer(role)])
        self._former = current.root.signed if current is not None else root
        self._root_file: tuple[str, bytes] | None = None
        self._ahead = ahead
        self._bump = 0 if current is None else ahead
        self._snapshot = Snapshot(meta={}) if current is None else current.snapshot.signed
        self._timestamp = Timestamp() if current is None else current.timestamp.signed
        self._files: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        """The new versions by role."""

    def add_root(self, signed: Metadata[Root]) -> None:
        """Publish this root too, which its holders have signed."""
        name = layout.file_name(layout.ROOT, signed.signed.version)
        self._root_file = (name, signed.to_bytes())
        self.versions[layout.ROOT] = signed.signed.version

    def add_top(self, signed: Metadata[Targets]) -> None:
        """Publish this targets role, which its holders have signed. Raises Conflict."""
        self._add(layout.TARGETS, signed.signed.version, signed.to_bytes())

    def add_targets(
        self, signed: Targets, role: str, signers: Sequence[Signer], delegator: Root | Targets
    ) -> None:
        """Sign `signed` as the next version of `targets` or of a fleet.

        Raises Conflict when it would be too large for stock clients, or when the signers are not
        those that `delegator` names.
        """
        listed = self._snapshot.meta.get(f"{role}.json")
        signed.version = listed.version + self._ahead if listed else 1
        self._add(role, signed.version, self._sign(signed, role, signers, delegator))

    def _add(self, role: str, version: int, data: bytes) -> None:
        if len(data) > layout.MAX_ROLE_BYTES:
            raise Conflict(
                f"The signed metadata of {role} would be {len(data)} bytes, more than devices "
                f"read ({layout.MAX_ROLE_BYTES}). Withdraw artifacts that are no longer needed."
            )
        self._files[layout.file_name(role, version)] = data
        self._snapshot.meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
        self.versions[role] = version

    def publish(self, *, renew_snapshot: bool = True) -> None:
        """Sign snapshot and timestamp, write everything, remove what is long superseded.

        Raises Conflict when an online key is missing or not the named one, Unavailable when the
        disk refuses.
        """
        if renew_snapshot:
            self._snapshot.version += self._bump
            data = self._sign_online(self._snapshot, layout.SNAPSHOT)
            self._files[layout.file_name(layout.SNAPSHOT, self._snapshot.version)] = data
            meta = MetaFile.from_data(self._snapshot.version, data, ["sha256"])
            self._timestamp.snapshot_meta = meta
        self._timestamp.version += self._bump
        timestamp = self._sign_online(self._timestamp, layout.TIMESTAMP)
        if self._root_file is None:
            self._repository.publish(self._files, timestamp)
        else:
            self._repository.publish_root(self._files, timestamp, self._root_file)
        try:
            self._repository.clean()
        except FacadeError as error:  # published all the same: old files do no harm
            log.warning("metadata_clean_failed", error=error.message)

    def _sign_online(self, signed: _T, role: str) -> bytes:
        """Sign with the named key, and with the one that it follows.

        So a client that has not seen the new root yet is content too, at every instant.
        """
        named, former = (root.roles[role].keyids for root in (self._root, self._former))
        signers = [self._keys.signer(role, named)]
        if former != named:
            leaving = set(former) - set(named)
            signers += [s for s in self._keys.signers(role) if s.public_key.keyid in leaving]
        return self._sign(signed, role, signers, self._root)

    def _sign(
        self, signed: _T, role: str, signers: Sequence[Signer], delegator: Root | Targets
    ) -> bytes:
        signed.expires = layout.expiry(role, self._clock)
        metadata: Metadata[_T] = Metadata(signed)
        try:
            for signer in signers:
                metadata.sign(signer, append=True)
            delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            data = metadata.to_bytes()
        except (RepositoryError, SerializationError, ValueError) as error:
            raise Conflict(f"The keys at hand do not sign for the role {role}: {error}.") from error
        self.versions[role] = signed.version
        return data


def check_own(role: str, published: Metadata[Any], signers: Sequence[Signer]) -> None:
    """Refuse to sign on top of what none of `signers` signed. Raises Integrity.

    The folder's newest root cannot vouch for that: whoever may write to the folder could put
    another root there, naming our keys beside theirs, and have us sign their targets.
    """
    for signer in signers:
        signature = published.signatures.get(signer.public_key.keyid)
        if signature is None:
            continue
        try:
            signer.public_key.verify_signature(signature, published.signed_bytes)
        except (UnverifiedSignatureError, VerificationError) as error:
            raise Integrity(f"The published signature of the role {role} is wrong.") from error
        return
    raise Integrity(f"The published metadata of the role {role} was not signed with our key.")
