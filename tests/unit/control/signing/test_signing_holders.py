"""Ceremonies with keys at hand, and the corners that carried files do not reach."""

import json
import shutil
from pathlib import Path

import pytest

from facade.control.signing.draft import Draft
from facade.control.signing.holders import Ceremony
from facade.control.signing.keys import OfflineKeys, OnlineKeys
from facade.control.signing.pending import Pending
from facade.control.signing.repository import JOURNAL
from facade.errors import Conflict, Integrity, Invalid, NotFound, Unavailable
from tests.support.signing import (
    PASSPHRASE,
    SignedRepository,
    StockClient,
    make_repository,
    make_target,
)


def ceremony(repo: SignedRepository, offline: Path | None = None) -> Ceremony:
    keys = OfflineKeys(offline or repo.offline, PASSPHRASE)
    return Ceremony(repo.folder, OnlineKeys(repo.online), keys, repo.clock)


@pytest.fixture
def repo(tmp_path: Path) -> SignedRepository:
    return make_repository(tmp_path, "dev", "prod")


def test_every_role_in_one_ceremony(repo: SignedRepository) -> None:
    repo.publisher.publish("dev", add=[make_target()])
    client = StockClient(repo.metadata, repo.initialised.root)
    client.updater()
    roles = ["root", "targets", "snapshot", "timestamp", "dev", "prod"]
    before = ceremony(repo).files.key_ids_ever()
    assert set(ceremony(repo).rotate(roles, {}).published) == set(roles)
    current = ceremony(repo).files.current()
    named = {key for role in current.root.signed.roles.values() for key in role.keyids}
    assert not named & before
    assert client.target("dev/app/v1") == make_target()
    repo.reopened().publish("prod", add=[make_target(fleet="prod")])
    assert client.target("prod/app/v1") is not None
    assert not list(repo.folder.glob("*.json")), "nothing waits, nothing is half done"


def test_an_unknown_role_is_not_rotated(repo: SignedRepository) -> None:
    for roles in (["nosuch"], []):
        with pytest.raises(NotFound, match="no role"):
            ceremony(repo).rotate(roles, {})
    with pytest.raises(Invalid, match="one role at a time"):
        ceremony(repo).rotate(["root", "targets"], {}, threshold=1)
    with pytest.raises(Invalid, match="one role at a time"):
        ceremony(repo).rotate(["dev"], {}, threshold=1)
    with pytest.raises(NotFound, match="to drop"):
        ceremony(repo).rotate(["root"], {}, drop=["beef"])


def test_without_a_key_at_hand_it_asks_which(repo: SignedRepository, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="--add FILE --drop KEYID"):
        ceremony(repo, tmp_path / "none").rotate(["root"], {})
    assert Pending(repo.folder).load() is None


def test_the_same_key_id_prefix_for_two_keys_is_refused(repo: SignedRepository) -> None:
    with pytest.raises(NotFound, match="to drop"):
        ceremony(repo).rotate(["root"], {}, drop=["", ""])


def test_offline_keys_do_not_sign_on_top_of_what_they_did_not_sign(
    repo: SignedRepository, tmp_path: Path
) -> None:
    """A tree of somebody else's, that names our targets key beside its own."""
    evil = make_repository(tmp_path / "evil")
    ours = OfflineKeys(repo.offline, PASSPHRASE).signers("targets")
    theirs = ceremony(evil)
    theirs.rotate(["targets"], {}, add=[ours[0].public_key])
    for path in repo.offline.glob("targets-*"):
        shutil.copy(path, evil.offline)
    (signed_by_evil,) = (
        path for path in evil.offline.glob("targets-*") if not (repo.offline / path.name).exists()
    )
    signed_by_evil.unlink()
    assert ceremony(evil).delegate(["more"], {}).published == {}, "it waits for a holder to read it"


def test_a_lone_key_says_so(repo: SignedRepository, tmp_path: Path) -> None:
    evil = make_repository(tmp_path / "evil")
    (ours,) = OfflineKeys(repo.offline, PASSPHRASE).signers("targets")
    theirs = ceremony(evil)
    current = theirs.files.current()
    root = current.root.signed
    (old,) = tuple(root.roles["targets"].keyids)
    root.revoke_key(old, "targets")
    root.add_key(ours.public_key, "targets")
    (root_signer,) = OfflineKeys(evil.offline, PASSPHRASE).signers("root")
    current.root.sign(root_signer)
    (evil.metadata / "1.root.json").write_bytes(current.root.to_bytes())
    with pytest.raises(Integrity):
        ceremony(evil, repo.offline).delegate(["more"], {})


def test_a_change_whose_publisher_died_before_the_last_step_waits_no_more(
    repo: SignedRepository,
) -> None:
    outcome = ceremony(repo).renew(["root"])
    assert outcome.proposal is not None
    Pending(repo.folder).save(outcome.proposal)
    assert ceremony(repo).renew(["targets"]).published
    assert Pending(repo.folder).load() is None


def test_what_a_dead_writer_began_is_finished_first(repo: SignedRepository) -> None:
    """The journal of a new root is there, and nothing of it was done yet."""
    before = {path.name for path in repo.metadata.iterdir()}
    copy = repo.folder.with_name("copy")
    shutil.copytree(repo.folder, copy)
    ceremony(repo).rotate(["timestamp"], {})
    new = {path.name for path in repo.metadata.iterdir()} - before
    steps = {name: (repo.metadata / name).read_text() for name in sorted(new)}
    steps["timestamp.json"] = (repo.metadata / "timestamp.json").read_text()
    shutil.rmtree(repo.folder)
    copy.rename(repo.folder)
    (repo.folder / JOURNAL).write_text(json.dumps(steps))
    assert repo.publisher.resign() is False
    assert not (repo.folder / JOURNAL).exists()
    assert ceremony(repo).files.current().root.signed.version == 2
    StockClient(repo.metadata, repo.initialised.root).updater()


@pytest.mark.parametrize(
    "name", ["../../escaped.json", "1./../../escaped.json", "/etc/passwd", "x"]
)
def test_a_journal_writes_metadata_files_only(repo: SignedRepository, name: str) -> None:
    (repo.folder / JOURNAL).write_text(json.dumps({name: "x"}))
    with pytest.raises(Integrity, match="no metadata file"):
        repo.publisher.resign()
    assert not list(repo.folder.parent.rglob("*escaped*"))


def test_a_journal_that_cannot_be_read_stops_writers(repo: SignedRepository) -> None:
    (repo.folder / JOURNAL).write_text("{")
    with pytest.raises(Unavailable, match="cannot be read"):
        repo.publisher.publish("dev", add=[make_target()])


def test_the_replaced_key_is_removed(repo: SignedRepository) -> None:
    assert ceremony(repo).rotate(["dev"], {}).published
    assert [path.name.startswith("dev@") for path in repo.online.glob("dev*")] == [True]


def test_a_lost_publisher_key_needs_a_word(repo: SignedRepository) -> None:
    repo.publisher.publish("dev", add=[make_target()])
    (repo.online / "dev.pem").unlink()
    with pytest.raises(Conflict, match="--old-key-lost"):
        ceremony(repo).rotate(["dev"], {})
    assert ceremony(repo).rotate(["dev"], {}, old_key_lost=True).published
    client = StockClient(repo.metadata, repo.initialised.root)
    assert client.target("dev/app/v1") == make_target()


def test_a_draft_with_a_lost_key_still_wants_the_others(repo: SignedRepository) -> None:
    (repo.online / "snapshot.pem").unlink()
    files = ceremony(repo).files
    current = files.current()
    keys = OnlineKeys(repo.online)
    with pytest.raises(Conflict, match="snapshot"):
        Draft(files, keys, repo.clock, root=current.root.signed, current=current)
    Draft(files, keys, repo.clock, root=current.root.signed, current=current, lost=True)
