"""A live signing repository with its keys in memory, which can misbehave on demand.

Guarantees: `publish` leaves a repository that a stock TUF client accepts, laid out as trust.md says
(fleet roles delegated by name, terminating, consistent snapshots with lengths and hashes); every
part stays open, so that a test changes `root`, `targets`, `fleets`, `snapshot`, `timestamp`,
`signers` or the finished `files`, and signs what no honest publisher would. Shares no code with
`control.signing`: the verifier is tested against a second reading of the rules.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.target import SignedTarget

_CHUNK_BYTES = 64 * 1024
_LIFETIMES = {
    "root": timedelta(days=365),
    "targets": timedelta(days=365),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(days=1),
}
_FLEET_LIFETIME = timedelta(days=90)


def signed_target(
    path: str,
    manifest: bytes = b"{}",
    *,
    place: str = "ghcr.io/org/app",
    media_type: str = "application/vnd.oci.image.manifest.v1+json",
    platforms: Sequence[str] = (),
    referrers: Iterable[Digest] = (),
) -> SignedTarget:
    """A target for `manifest`, which lives in `place` (host/repository)."""
    fleet, name, version = path.split("/")
    host, _, repository = place.partition("/")
    registry = RegistryHost.parse(host)
    return SignedTarget(
        fleet=fleet,
        name=name,
        version=version,
        digest=Digest.of(manifest),
        length=len(manifest),
        registry=registry,
        repository=registry.repository(repository),
        media_type=media_type,
        platforms=tuple(platforms),
        referrers=tuple(referrers),
    )


class TufRepo:
    """Signs.

    Arguments:
        fleets: delegated from the start.
        clock: gives Unix seconds, for expiry; the default is the machine's clock, which tuf's
            own updater cannot be kept from asking.
        root_keys, root_threshold: how many keys root has, and how many must sign.
    """

    def __init__(
        self,
        fleets: Iterable[str] = ("dev",),
        *,
        clock: Callable[[], float] | None = None,
        root_keys: int = 1,
        root_threshold: int = 1,
    ) -> None:
        self._clock = clock or (lambda: datetime.now(UTC).timestamp())
        self.files: dict[str, bytes] = {}
        """What a client can fetch, by name."""
        self.lifetimes: dict[str, timedelta] = dict(_LIFETIMES)
        self.signers: dict[str, list[Signer]] = {
            role: [new_key()] for role in ("targets", "snapshot", "timestamp")
        }
        self.signers["root"] = [new_key() for _ in range(root_keys)]
        self.root = Root(version=1, consistent_snapshot=True)
        for role, signers in self.signers.items():
            for signer in signers:
                self.root.add_key(signer.public_key, role)
        self.root.roles["root"].threshold = root_threshold
        self.targets = Targets(version=1, delegations=Delegations({}, {}))
        self.fleets: dict[str, Targets] = {}
        self.snapshot = Snapshot(version=1, meta={})
        self.timestamp = Timestamp(version=1)
        self.put("root", self.root)
        for fleet in fleets:
            self.delegate(fleet)
        self.put("targets", self.targets)
        for fleet in self.fleets:
            self.put(fleet, self.fleets[fleet])
        self.put("snapshot", self.snapshot)
        self.put("timestamp", self.timestamp)

    @property
    def pinned(self) -> bytes:
        """The first root.json."""
        return self.files["1.root.json"]

    def publish(self, *targets: SignedTarget, fleets: Iterable[str] = ()) -> None:
        """Sign these targets as well, then new versions of all that changed.

        Arguments:
            fleets: roles to sign again although no target came.
        """
        changed = {target.fleet for target in targets} | set(fleets)
        for target in targets:
            self.fleets[target.fleet].targets[target.path] = target_file(target)
        for fleet in sorted(changed):
            self.fleets[fleet].version += 1
            self.put(fleet, self.fleets[fleet])
        self.bump("snapshot")
        self.bump("timestamp")

    def bump(self, role: str) -> None:
        """Sign the next version of a role as it stands now."""
        signed = self.signed(role)
        signed.version += 1
        self.put(role, signed)

    def signed(self, role: str) -> Signed:
        """The role's payload, to be changed."""
        top: Mapping[str, Signed] = {
            "root": self.root,
            "targets": self.targets,
            "snapshot": self.snapshot,
            "timestamp": self.timestamp,
        }
        return top.get(role) or self.fleets[role]

    def put(self, role: str, signed: Signed, signers: Sequence[Signer] | None = None) -> bytes:
        """Sign and file a payload, and list it where the next role up lists it.

        Arguments:
            signers: others than the role's own.
        """
        lifetime = self.lifetimes.get(role, _FLEET_LIFETIME)
        signed.expires = datetime.fromtimestamp(int(self._clock()), UTC) + lifetime
        metadata = Metadata(cast("Targets", signed))  # any kind of payload will do
        for signer in self.signers[role] if signers is None else signers:
            metadata.sign(signer, append=True)
        data = metadata.to_bytes()
        name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        self.files[name] = data
        entry = MetaFile.from_data(signed.version, data, ["sha256"])
        if role == "snapshot":
            self.timestamp.snapshot_meta = entry
        elif role not in {"root", "timestamp"}:
            self.snapshot.meta[f"{role}.json"] = entry
        return data

    def delegate(self, fleet: str, *, paths: Sequence[str] | None = None) -> DelegatedRole:
        """Delegate to a new fleet; sign targets, and publish, to make it known."""
        signer = new_key()
        role = DelegatedRole(
            name=fleet,
            keyids=[],
            threshold=1,
            terminating=True,
            paths=[f"{fleet}/*/*"] if paths is None else list(paths),
        )
        assert self.targets.delegations is not None
        assert self.targets.delegations.roles is not None
        self.targets.delegations.roles[fleet] = role
        self.targets.add_key(signer.public_key, fleet)
        self.signers[fleet] = [signer]
        self.fleets[fleet] = Targets(version=1)
        self.snapshot.meta[f"{fleet}.json"] = MetaFile(version=1)
        return role

    def rotate_key(self, fleet: str) -> Signer:
        """Give the fleet a new key and revoke the old one, which is returned."""
        (old,) = self.signers[fleet]
        self.targets.revoke_key(old.public_key.keyid, fleet)
        new = new_key()
        self.targets.add_key(new.public_key, fleet)
        self.signers[fleet] = [new]
        return old

    def rotate_root(self, *, renew: Iterable[str] = ("root",)) -> None:
        """Sign the next root, by the old keys and the new.

        Arguments:
            renew: the top-level roles that get new keys.
        """
        old = list(self.signers["root"])
        for role in renew:
            for signer in self.signers[role]:
                self.root.revoke_key(signer.public_key.keyid, role)
            self.signers[role] = [new_key() for _ in self.signers[role]]
            for signer in self.signers[role]:
                self.root.add_key(signer.public_key, role)
        self.root.version += 1
        both = {signer.public_key.keyid: signer for signer in (*old, *self.signers["root"])}
        self.put("root", self.root, list(both.values()))

    def write(self, folder: Path) -> None:
        """Write every file, the timestamp last."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(self.files, key="timestamp.json".__eq__):
            temporary = folder / f".{name}.new"
            temporary.write_bytes(self.files[name])
            temporary.replace(folder / name)


class RepoSource:
    """Serves `repo.files` as they are now (`facade.serving.trust.fetcher.Source`).

    Arguments:
        endless: names whose bytes never end.
        failing: names whose reading raises this.
        pace: called before every chunk.
    """

    def __init__(self, repo: TufRepo) -> None:
        self.files = repo.files
        self.endless: set[str] = set()
        self.failing: dict[str, Exception] = {}
        self.requests: list[str] = []
        self.sent = 0
        self.pace: Callable[[], object] = lambda: None

    def chunks(self, name: str) -> Iterator[bytes]:
        self.requests.append(name)
        if name in self.failing:
            raise self.failing[name]
        while name in self.endless:
            self.pace()
            self.sent += _CHUNK_BYTES
            yield b" " * _CHUNK_BYTES
        if name not in self.files:
            raise DownloadHTTPError(name, 404)
        data = self.files[name]
        for start in range(0, len(data), _CHUNK_BYTES):
            self.pace()
            self.sent += len(data[start : start + _CHUNK_BYTES])
            yield data[start : start + _CHUNK_BYTES]


def new_key() -> CryptoSigner:
    """A fresh Ed25519 key."""
    return CryptoSigner.generate_ed25519()


def target_file(target: SignedTarget) -> TargetFile:
    """What is signed for a target."""
    return TargetFile(
        target.length, {"sha256": target.digest.hex}, target.path, {"custom": target.custom}
    )
