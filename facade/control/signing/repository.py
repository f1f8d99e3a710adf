"""The metadata folder of one TUF repository: what is current, and how it changes.

Guarantees: whoever reads timestamp.json finds every file that it leads to, whatever a writer is doing
or whenever one died: new files are written and flushed first, timestamp.json last, each by rename.
A change of the root, whose file clients look for first, is written down whole before it begins, and
whoever takes the lock next finishes what a dead writer began. One writer at a time, over threads
and processes (`lock`). What `current` gives was verified from the newest root down (signatures, lengths, hashes, not expiry). Does not pin a root: clients do.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from facade.clock import Clock
from facade.control.signing import layout
from facade.control.signing.canonical import parsed
from facade.control.signing.files import (
    TEMPORARY_SUFFIX,
    make_folder,
    sync_folder,
    write_file,
)
from facade.errors import Conflict, Integrity, Unavailable

JOURNAL = "publishing.json"
"""Where a change of the root is written down before it begins."""


@dataclass(frozen=True, slots=True)
class Current:
    """The top of the tree as published, verified."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]

    @property
    def fleets(self) -> tuple[str, ...]:
        """The delegated fleets."""
        return layout.delegated_fleets(self.targets.signed)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a look at a fleet's role shows."""

    version: int
    expires: datetime
    targets: int


class MetadataRepository:
    """A repository folder; its files lie in `metadata/`.

    Arguments:
        folder: the repository folder.
        clock: stamps the files, so that it can be told how long one has been superseded.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self._clock = clock
        self._summaries: dict[str, tuple[object, Summary]] = {}

    @property
    def exists(self) -> bool:
        """Whether a first ceremony was finished here."""
        return (self.metadata / "timestamp.json").is_file()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer; waits for the other one. The kernel lock dies with its process."""
        make_folder(self.metadata, 0o755)
        try:
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(f"{self.folder} cannot be locked: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._finish()
            yield
        finally:
            os.close(descriptor)

    def current(self) -> Current:
        """The published top-level metadata.

        Raises Conflict before the first ceremony, Integrity when the files do not fit together.
        """
        if not self.exists:
            raise Conflict(
                f"There is no signed repository in {self.folder}. Run: facade trust init"
            )
        with _wrapped("root"):
            root = Metadata[Root].from_bytes(self._newest_root())
            root.signed.verify_delegate(layout.ROOT, root.signed_bytes, root.signatures)
        timestamp = self._load(Timestamp, layout.TIMESTAMP, 1, None, root.signed)
        snapshot_meta = timestamp.signed.snapshot_meta
        snapshot = self._load(
            Snapshot, layout.SNAPSHOT, snapshot_meta.version, snapshot_meta, root.signed
        )
        targets_meta = snapshot.signed.meta.get("targets.json")
        if targets_meta is None:
            raise Integrity("The signed snapshot does not list targets.json.")
        targets = self._load(
            Targets, layout.TARGETS, targets_meta.version, targets_meta, root.signed
        )
        return Current(root, timestamp, snapshot, targets)

    def fleet(self, current: Current, fleet: str) -> Metadata[Targets]:
        """The published role of a delegated fleet. Raises Integrity."""
        meta = _listed(current, fleet)
        role: Metadata[Targets] = self._load(
            Targets, fleet, meta.version, meta, current.targets.signed
        )
        return role

    def summary(self, current: Current, fleet: str) -> Summary:
        """What the published role of a delegated fleet says of itself. Raises Integrity.

        A file is verified once: later it only has to be the very one, by its hash in the verified
        snapshot, under the very targets role, which holds the fleet's keys.
        """
        meta, delegator = _listed(current, fleet), _listed(current, layout.TARGETS)
        anchor = (meta.to_dict(), delegator.to_dict()) if meta.hashes and delegator.hashes else None
        known = self._summaries.get(fleet)
        if anchor is not None and known is not None and known[0] == anchor:
            with _wrapped(fleet):
                meta.verify_length_and_hashes(self._read(layout.file_name(fleet, meta.version)))
            return known[1]
        signed = self.fleet(current, fleet).signed
        summary = Summary(signed.version, signed.expires, len(signed.targets))
        self._summaries[fleet] = (anchor, summary)
        return summary

    def publish(self, files: Mapping[str, bytes], timestamp: bytes) -> None:
        """Make new metadata current. The caller holds the lock.

        A file that a dead writer left under the same name was never current, and is replaced.
        Raises Unavailable when the disk refuses; then what was current still is.
        """
        for name, data in files.items():
            write_file(self.metadata / name, data, mtime=self._clock.time())
        sync_folder(self.metadata)
        write_file(self.metadata / "timestamp.json", timestamp, mtime=self._clock.time())
        sync_folder(self.metadata)

    def publish_root(
        self, files: Mapping[str, bytes], timestamp: bytes, root: tuple[str, bytes]
    ) -> None:
        """Make new metadata current, with a new root. The caller holds the lock.

        Where there is a root already the new one comes last: until then clients verify with the
        old one, for which everything was signed too, if its keys are still there.

        Arguments:
            root: its file name and bytes.

        Raises Unavailable when the disk refuses; then all or nothing of it was done once the lock
        is taken again.
        """
        steps = {**files, f"{layout.TIMESTAMP}.json": timestamp}
        steps = {**steps, root[0]: root[1]} if self.exists else {root[0]: root[1], **steps}
        journal = {name: data.decode() for name, data in steps.items()}
        write_file(self.folder / JOURNAL, json.dumps(journal).encode())
        sync_folder(self.folder)
        self._finish()

    def _finish(self) -> None:
        """Carry out what is written down, if anything is. Needs the lock."""
        path = self.folder / JOURNAL
        try:
            steps = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise Unavailable(f"{path} cannot be read.") from error
        for name, text in steps.items():
            known = name == "timestamp.json" or layout.parse_file_name(name)
            if not known or "/" in name:
                raise Integrity(f"{path} names {name!r}, which is no metadata file.")
            write_file(self.metadata / name, text.encode(), mtime=self._clock.time())
            sync_folder(self.metadata)  # so that they appear in this order, after a crash too
        try:
            path.unlink()
        except OSError as error:
            raise Unavailable(f"{path} cannot be removed: {error.strerror}.") from error
        sync_folder(self.folder)

    def key_ids_ever(self) -> frozenset[str]:
        """Every key that any root named, or that was revoked from a fleet. Raises Integrity."""
        if not self.exists:
            return frozenset()
        current = self.current()
        ids = set(layout.revoked_keys(current.targets.signed))
        for version in range(1, current.root.signed.version + 1):
            data = self._read(layout.file_name(layout.ROOT, version))
            with _wrapped("root"):
                ids |= Metadata[Root].from_bytes(data).signed.keys.keys()
        return frozenset(ids)

    def clean(self) -> list[str]:
        """Remove what was superseded 24 h ago, and what dead writers left. Needs the lock.

        Roots stay: a client walks through all of them (TUF 1.0, 5.3). Returns the names.
        """
        versions = self._current_versions()
        present = {name: key for name in self._names() if (key := layout.parse_file_name(name))}
        removed = [name for name in self._names() if name.endswith(TEMPORARY_SUFFIX)]
        for name, (role, version) in present.items():
            if role == layout.ROOT or version >= versions.get(role, version):
                continue
            newer = [v for r, v in present.values() if r == role and version < v <= versions[role]]
            if newer and self._is_long_ago(layout.file_name(role, min(newer))):
                removed.append(name)
        try:
            for name in removed:
                (self.metadata / name).unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"{self.metadata} cannot be cleaned: {error.strerror}.") from error
        return removed

    def _current_versions(self) -> dict[str, int]:
        snapshot = self.current().snapshot.signed
        listed = {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}
        return {**listed, layout.SNAPSHOT: snapshot.version}

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.metadata.iterdir())

    def _is_long_ago(self, name: str) -> bool:
        """Whether the file was written long enough ago for its predecessor to go."""
        written = (self.metadata / name).stat().st_mtime
        return written + layout.RETENTION_SECONDS <= self._clock.time()

    def _newest_root(self) -> bytes:
        keys = [key for name in self._names() if (key := layout.parse_file_name(name))]
        versions = [version for role, version in keys if role == layout.ROOT]
        if not versions:
            raise Integrity(f"There is no root metadata in {self.metadata}.")
        return self._read(layout.file_name(layout.ROOT, max(versions)))

    def _load(
        self, kind: Any, role: str, version: int, meta: MetaFile | None, delegator: Root | Targets
    ) -> Any:
        data = self._read(layout.file_name(role, version))
        with _wrapped(role):
            if meta is not None:
                meta.verify_length_and_hashes(data)
            metadata, signed_bytes = parsed(data)
            if not isinstance(metadata.signed, kind):
                raise RepositoryError(f"it is of type {metadata.signed.type}")
            delegator.verify_delegate(role, signed_bytes, metadata.signatures)
            if meta is not None and metadata.signed.version != meta.version:
                raise RepositoryError(f"it is version {metadata.signed.version}")
        return metadata

    def _read(self, name: str) -> bytes:
        try:
            return (self.metadata / name).read_bytes()
        except FileNotFoundError as error:
            raise Integrity(f"{name} is missing from {self.metadata}.") from error
        except OSError as error:
            raise Unavailable(f"{name} cannot be read: {error.strerror}.") from error


def _listed(current: Current, role: str) -> MetaFile:
    meta = current.snapshot.signed.meta.get(f"{role}.json")
    if meta is None:
        raise Integrity(f"The signed snapshot does not list the fleet {role}.")
    return meta


@contextmanager
def _wrapped(role: str) -> Iterator[None]:
    try:
        yield
    except (RepositoryError, DeserializationError, ValueError) as error:
        raise Integrity(f"The published metadata of {role} is not sound: {error}.") from error
