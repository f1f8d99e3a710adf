"""Harnesses for signed metadata and for what the node keeps on its own disk.

A signature stops most bytes at the door, so `tuf-signed` signs whatever it is given with the role's own key: what
a stolen or confused key could publish.
"""

import json
from typing import TypeVar

from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets, Timestamp

from facade.errors import FacadeError, Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.tags import BlockTags, TagKey, TagWriter
from facade.serving.trust.chain import Chain, verified_chain
from facade.target import SignedTarget
from tests.fuzz.harness import Harness, as_json, fields
from tests.support.tuf_repo import TufRepo, signed_target

_NOW = 1_700_000_000.0
_ROLES = ("timestamp", "snapshot", "targets", "dev", "root")
_PATH = "dev/app/v1"
S = TypeVar("S", Snapshot, Timestamp)


class Repository:
    """A small repository, one of whose files is something else each time."""

    def __init__(self) -> None:
        self.repo = TufRepo(clock=lambda: _NOW)
        self.repo.publish(signed_target(_PATH))
        self.repo.publish(signed_target("dev/app/v10", platforms=("linux/arm64",)))

    def raw(self, data: bytes) -> None:
        """Any bytes in place of one file."""
        role, rest = _role(data)
        self._verify({self._name(role): rest})

    def signed(self, data: bytes) -> None:
        """Any payload in place of a role's, signed with its own key and listed as it is."""
        role, payload = _role(data)
        whole = b'{"signatures":[],"signed":' + payload + b"}"
        try:
            metadata = Metadata[Targets].from_bytes(whole)
            for signer in self.repo.signers[role]:
                metadata.sign(signer, append=True)
            whole = metadata.to_bytes()
        except Exception:  # noqa: BLE001 - the library cannot even read it: as raw as it came
            self._verify({self._name(role): whole})
            return
        files = {self._name(role): whole}
        version = metadata.signed.version
        if role in ("targets", "dev"):
            files |= self._listing(f"{role}.json", version, whole)
        elif role == "snapshot":
            files |= self._announcing(version, whole)
        self._verify(files)

    def _listing(self, name: str, version: int, data: bytes) -> dict[str, bytes]:
        """A snapshot that lists `data` under `name`, and its timestamp."""
        snapshot = Metadata[Snapshot].from_bytes(self._file("snapshot"))
        snapshot.signed.meta[name] = MetaFile.from_data(version, data, ["sha256"])
        whole = self._sign("snapshot", snapshot)
        return {"snapshot.json": whole, **self._announcing(snapshot.signed.version, whole)}

    def _announcing(self, version: int, snapshot: bytes) -> dict[str, bytes]:
        timestamp = Metadata[Timestamp].from_bytes(self.repo.files["timestamp.json"])
        timestamp.signed.snapshot_meta = MetaFile.from_data(version, snapshot, ["sha256"])
        return {"timestamp.json": self._sign("timestamp", timestamp)}

    def _sign(self, role: str, metadata: Metadata[S]) -> bytes:
        for number, signer in enumerate(self.repo.signers[role]):
            metadata.sign(signer, append=number > 0)
        return metadata.to_bytes()

    def _verify(self, replaced: dict[str, bytes]) -> None:
        def read(name: str) -> bytes:
            if name in replaced:
                return replaced[name]
            if name.startswith("root_history/"):
                raise FileNotFoundError(name)
            return self._file(name.removesuffix(".json"))

        chain: Chain = verified_chain(self.repo.pinned, read, _NOW)
        for fleet in chain.fleets:
            data = replaced.get(f"{fleet}.json", self._file("dev"))
            try:
                view = chain.fleet_view(fleet, data, _NOW, None)
            except FacadeError:
                continue
            for path, target in view.by_path.items():
                assert path.split("/")[0] == fleet
                assert (
                    SignedTarget.parse(
                        path,
                        length=target.length,
                        hashes={"sha256": target.digest.hex},
                        custom=target.custom,
                    )
                    == target
                )

    def _file(self, role: str) -> bytes:
        if role == "timestamp":
            return self.repo.files["timestamp.json"]
        return self.repo.files[f"{self.repo.signed(role).version}.{role}.json"]

    @staticmethod
    def _name(role: str) -> str:
        return "root_history/2.root.json" if role == "root" else f"{role}.json"

    def payloads(self) -> list[bytes]:
        """Seeds for `signed`: what is published, by role."""
        return [
            bytes([number]) + as_json(json.loads(self._file(role))["signed"])
            for number, role in enumerate(_ROLES)
        ]

    def files(self) -> list[bytes]:
        """Seeds for `raw`."""
        return [bytes([number]) + self._file(role) for number, role in enumerate(_ROLES)]


def _role(data: bytes) -> tuple[str, bytes]:
    return _ROLES[(data[0] if data else 0) % len(_ROLES)], data[1:]


def target(data: bytes) -> None:
    """A signed target's path, length and custom, as JSON."""
    path, length, document = fields(data, 3)
    try:
        custom = json.loads(document)
    except (ValueError, RecursionError):
        return
    if not isinstance(custom, dict):
        return
    size = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 1
    parsed = SignedTarget.parse(path, length=size, hashes={"sha256": "a" * 64}, custom=custom)
    assert parsed.path == path
    again = SignedTarget.parse(path, length=size, hashes={"sha256": "a" * 64}, custom=parsed.custom)
    assert again == parsed


class Sidecars:
    """Block tags as they lie on a disk that somebody else wrote to."""

    def __init__(self) -> None:
        self.key = TagKey(b"k" * 32)
        self.content = b"x" * 1000
        self.digest = Digest.of(self.content)
        writer = TagWriter(self.key, self.digest)
        writer.update(memoryview(self.content))
        self.right = writer.sidecar(len(self.content), "registry.example")

    def parse(self, data: bytes) -> None:
        """Only the right sidecar is taken, or one whose tags then match nothing."""
        found = BlockTags.parse(self.key, self.digest, data)
        assert (found.size, found.origin) == (len(self.content), "registry.example")
        try:
            found.check(0, memoryview(self.content))
        except Integrity:
            assert data != self.right


def harnesses() -> list[Harness]:
    """All of them."""
    repository, sidecars = Repository(), Sidecars()
    words = [
        b'"_type":',
        b'"version":',
        b'"expires":',
        b'"targets":',
        b'"delegations":',
        b'"paths":',
    ]
    words += [
        b'"custom":',
        b'"oci":',
        b'"hashes":',
        b'"length":',
        b"../",
        b"dev/",
        b"\\u0000",
        b"1e9",
    ]
    custom = signed_target(_PATH, platforms=("linux/arm64/v8",), referrers=(Digest.of(b""),)).custom
    return [
        Harness("tuf-raw", repository.raw, repository.files(), words, 8192),
        Harness("tuf-signed", repository.signed, repository.payloads(), words, 8192),
        Harness("target", target, [f"{_PATH}\0002\0".encode() + as_json(custom)], words),
        Harness("block-tags", sidecars.parse, [sidecars.right], [], 512),
    ]
