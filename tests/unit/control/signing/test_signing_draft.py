"""Drafts: the named keys sign, and nothing is built on what they did not sign."""

from pathlib import Path

import pytest
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets

from facade.control.signing.draft import Draft, check_own
from facade.control.signing.keys import OnlineKeys, new_key
from facade.control.signing.repository import MetadataRepository
from facade.errors import Conflict, Integrity
from tests.support.clock import FakeClock
from tests.support.signing import make_repository


def test_keys_that_the_delegator_does_not_name_sign_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    keys, files = OnlineKeys(tmp_path / "online"), MetadataRepository(tmp_path / "r", clock)
    draft = Draft(files, keys, clock, root=Root(), current=None)
    with pytest.raises(Conflict, match="targets"):
        draft.add_targets(Targets(), "targets", [new_key("ed25519")], Root())
    assert draft.versions == {}


def test_a_threshold_that_the_keys_at_hand_do_not_reach_signs_nothing(tmp_path: Path) -> None:
    clock, signers = FakeClock(), [new_key("ed25519"), new_key("ecdsa")]
    root = Root()
    for signer in signers:
        root.add_key(signer.public_key, "targets")
    root.roles["targets"].threshold = 2
    files = MetadataRepository(tmp_path / "r", clock)
    draft = Draft(files, OnlineKeys(tmp_path), clock, root=root, current=None)
    with pytest.raises(Conflict, match="1/2"):
        draft.add_targets(Targets(), "targets", signers[:1], root)
    draft.add_targets(Targets(), "targets", signers, root)
    assert draft.versions == {"targets": 1}


def test_a_wrong_signature_under_our_key_id_is_noticed() -> None:
    signer = new_key("ed25519")
    metadata = Metadata(Targets())
    metadata.sign(signer)
    check_own("dev", metadata, [new_key("ed25519"), signer])
    key_id = signer.public_key.keyid
    metadata.signatures[key_id] = Signature(key_id, "00" * 64)
    with pytest.raises(Integrity, match="wrong"):
        check_own("dev", metadata, [signer])


@pytest.mark.parametrize("lost", ["targets.json", "dev.json"])
def test_a_snapshot_that_lost_a_line_is_not_built_on(tmp_path: Path, lost: str) -> None:
    repo = make_repository(tmp_path)
    keys = OnlineKeys(repo.online)
    snapshot = Metadata[Snapshot].from_file(str(repo.metadata / "1.snapshot.json"))
    del snapshot.signed.meta[lost]
    snapshot.sign(keys.signer("snapshot"))
    data = snapshot.to_bytes()
    (repo.metadata / "1.snapshot.json").write_bytes(data)
    timestamp = Metadata.from_file(str(repo.metadata / "timestamp.json"))
    timestamp.signed.snapshot_meta = MetaFile.from_data(1, data, ["sha256"])  # type: ignore[attr-defined]
    timestamp.sign(keys.signer("timestamp"))
    timestamp.to_file(str(repo.metadata / "timestamp.json"))
    with pytest.raises(Integrity, match="does not list"):
        repo.publisher.targets("dev")
