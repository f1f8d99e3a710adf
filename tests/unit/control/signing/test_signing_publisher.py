"""Publishing: nothing half, nothing lost, nothing changed under its path."""

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from facade.control.signing import layout
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.publisher import Publisher
from facade.errors import Conflict, Integrity, Invalid, NotFound, Unavailable
from tests.support.signing import SignedRepository, StockClient, make_repository, make_target

DAY = 86_400.0


@pytest.fixture
def repo(tmp_path: Path) -> SignedRepository:
    return make_repository(tmp_path, "dev", "prod")


def client(repo: SignedRepository) -> StockClient:
    return StockClient(repo.metadata, repo.initialised.root)


def names(repo: SignedRepository) -> set[str]:
    return {path.name for path in repo.metadata.iterdir()}


def test_a_stock_client_gets_what_was_published(repo: SignedRepository) -> None:
    target = make_target()
    result = repo.publisher.publish("dev", add=[target])
    assert result.added == ("dev/app/v1",)
    assert result.versions == {"dev": 2, "snapshot": 2, "timestamp": 2}
    assert client(repo).target("dev/app/v1") == target
    assert repo.publisher.targets("dev") == {"dev/app/v1": target}
    assert repo.publisher.targets("prod") == {}


def test_a_withdrawn_target_is_gone_for_a_client_that_knew_it(repo: SignedRepository) -> None:
    repo.publisher.publish("dev", add=[make_target("v1"), make_target("v2")])
    device = client(repo)
    assert device.target("dev/app/v1") is not None
    result = repo.publisher.publish("dev", remove=["dev/app/v1"])
    assert result.removed == ("dev/app/v1",)
    assert device.target("dev/app/v1") is None
    assert device.target("dev/app/v2") is not None


def test_publishing_again_changes_nothing(repo: SignedRepository) -> None:
    repo.publisher.publish("dev", add=[make_target()])
    before = names(repo)
    result = repo.publisher.publish("dev", add=[make_target()])
    assert (result.unchanged, result.added, result.changed) == (("dev/app/v1",), (), False)
    assert names(repo) == before


def test_a_signed_target_never_changes(repo: SignedRepository) -> None:
    repo.publisher.publish("dev", add=[make_target()])
    other = make_target(content=b"other")
    with pytest.raises(Conflict, match="another version"):
        repo.publisher.publish("dev", add=[other])
    with pytest.raises(Conflict, match="another version"):
        repo.publisher.publish("dev", add=[make_target("v2"), other])
    with pytest.raises(Conflict, match="another version"):
        repo.publisher.publish("dev", add=[make_target()], remove=["dev/app/v1"])
    assert repo.publisher.targets("dev") == {"dev/app/v1": make_target()}


def test_a_withdrawn_path_never_stands_for_another_image(repo: SignedRepository) -> None:
    """Whatever the catalog's database remembers: the publisher remembers itself."""
    repo.publisher.publish("dev", add=[make_target()])
    repo.publisher.publish("dev", remove=["dev/app/v1"])
    with pytest.raises(Conflict, match="before it was withdrawn"):
        repo.reopened().publish("dev", add=[make_target(content=b"other"), make_target("v2")])
    assert repo.publisher.targets("dev") == {}
    repo.publisher.publish("dev", add=[make_target()])
    assert client(repo).target("dev/app/v1") == make_target()


def test_what_a_crash_tore_off_is_not_relied_on(repo: SignedRepository) -> None:
    repo.publisher.publish("dev", add=[make_target("v1"), make_target("v2")])
    notes = repo.folder / "withdrawn.jsonl"
    notes.write_text('["dev/app/v1", "ab')
    repo.publisher.publish("dev", remove=["dev/app/v1", "dev/app/v2"])
    for version in ("v1", "v2"):
        with pytest.raises(Conflict, match="before it was withdrawn"):
            repo.publisher.publish("dev", add=[make_target(version, content=b"other")])


def test_what_cannot_be_remembered_is_not_withdrawn(repo: SignedRepository) -> None:
    repo.publisher.publish("dev", add=[make_target()])
    (repo.folder / "withdrawn.jsonl").mkdir()
    with pytest.raises(Unavailable, match="withdrawn"):
        repo.publisher.publish("dev", remove=["dev/app/v1"])
    assert set(repo.publisher.targets("dev")) == {"dev/app/v1"}


def test_one_call_is_all_or_nothing(repo: SignedRepository) -> None:
    with pytest.raises(NotFound, match="dev/app/v9"):
        repo.publisher.publish("dev", add=[make_target()], remove=["dev/app/v9"])
    with pytest.raises(Invalid, match="prod/app/v1"):
        repo.publisher.publish("dev", add=[make_target(), make_target(fleet="prod")])
    with pytest.raises(NotFound, match="facade fleet add"):
        repo.publisher.publish("nofleet", add=[])
    with pytest.raises(NotFound):
        repo.publisher.targets("root")
    assert repo.publisher.targets("dev") == {}


def test_at_most_ten_thousand_targets(repo: SignedRepository) -> None:
    many = [make_target(f"v{number}") for number in range(layout.MAX_TARGETS)]
    repo.publisher.publish("dev", add=many)
    with pytest.raises(Conflict, match="10000 is the limit"):
        repo.publisher.publish("dev", add=[make_target("one-more")])
    repo.publisher.publish("dev", add=[make_target("one-more")], remove=["dev/app/v0"])
    assert client(repo).target("dev/app/one-more") is not None


def test_a_role_stays_smaller_than_what_clients_read(repo: SignedRepository) -> None:
    long = "x" * 120
    many = [make_target(f"{long}{number}", name="n" * 63) for number in range(9_000)]
    with pytest.raises(Conflict, match="4900000"):
        repo.publisher.publish("dev", add=many)
    assert "2.dev.json" not in names(repo)


def test_old_files_stay_for_a_day_and_roots_for_ever(repo: SignedRepository) -> None:
    for number in range(3):
        repo.publisher.publish("dev", add=[make_target(f"v{number}")])
        repo.clock.advance(3600)
    assert {"1.dev.json", "2.dev.json", "3.dev.json", "4.dev.json"} <= names(repo)
    repo.clock.advance(22.5 * 3600)  # 2.dev.json was superseded 24.5 h ago, 3.dev.json 23.5 h
    repo.publisher.publish("prod", add=[make_target(fleet="prod")])
    assert names(repo) == {
        *("1.root.json", "timestamp.json", "1.targets.json"),
        *("3.dev.json", "4.dev.json", "1.prod.json", "2.prod.json"),
        *("3.snapshot.json", "4.snapshot.json", "5.snapshot.json"),
    }


def test_a_long_current_file_stays_a_day_after_it_was_superseded(repo: SignedRepository) -> None:
    repo.clock.advance(30 * DAY)
    repo.publisher.publish("dev", add=[make_target()])
    repo.clock.advance(DAY - 60)
    repo.publisher.publish("prod", add=[make_target(fleet="prod")])
    assert {"1.dev.json", "1.snapshot.json"} <= names(repo)
    repo.clock.advance(60)
    repo.publisher.publish("prod", remove=["prod/app/v1"])
    assert not {"1.dev.json", "1.snapshot.json"} & names(repo)


def test_what_a_dead_writer_left_is_replaced_or_removed(repo: SignedRepository) -> None:
    """Files were written and timestamp.json was not: they never were current."""
    (repo.metadata / "2.dev.json").write_bytes(b"half")
    (repo.metadata / "2.snapshot.json").write_bytes(b"half")
    (repo.metadata / "3.dev.json.writing").write_bytes(b"ha")
    device = client(repo)
    assert device.target("dev/app/v1") is None
    repo.publisher.publish("dev", add=[make_target()])
    assert device.target("dev/app/v1") is not None
    assert "3.dev.json.writing" not in names(repo)


def test_a_file_above_the_current_version_supersedes_nothing(repo: SignedRepository) -> None:
    orphan = repo.metadata / "9.dev.json"
    orphan.write_bytes(b"left by a dead writer")
    os.utime(orphan, (0, 0))
    repo.publisher.publish("prod", add=[make_target(fleet="prod")])
    assert {"1.dev.json", "9.dev.json"} <= names(repo)
    assert client(repo).target("dev/app/v1") is None


def test_threads_lose_no_update(repo: SignedRepository) -> None:
    def add(number: int) -> None:
        fleet = ("dev", "prod")[number % 2]
        repo.reopened().publish(fleet, add=[make_target(f"v{number}", fleet=fleet)])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(repo.publisher.targets("dev")) == len(repo.publisher.targets("prod")) == 6
    assert (repo.metadata / "13.snapshot.json").exists()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("1.dev.json", "dev"),
        ("1.snapshot.json", "snapshot"),
        ("1.targets.json", "targets"),
        ("1.root.json", "root"),
        ("timestamp.json", "timestamp"),
    ],
)
def test_changed_metadata_is_not_signed_on_top_of(
    repo: SignedRepository, file: str, words: str
) -> None:
    path = repo.metadata / file
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":7'))
    with pytest.raises(Integrity, match=words):
        repo.publisher.publish("dev", add=[make_target()])


@pytest.mark.parametrize("file", ["1.dev.json", "1.snapshot.json", "1.root.json"])
def test_missing_metadata_is_said(repo: SignedRepository, file: str) -> None:
    (repo.metadata / file).unlink()
    with pytest.raises(Integrity):
        repo.publisher.publish("dev", add=[make_target()])


def test_a_role_of_another_type_is_refused(repo: SignedRepository) -> None:
    (repo.metadata / "timestamp.json").write_bytes((repo.metadata / "1.snapshot.json").read_bytes())
    with pytest.raises(Integrity, match="type"):
        repo.publisher.fleets()


def test_a_key_that_is_not_the_delegated_one_signs_nothing(repo: SignedRepository) -> None:
    (repo.online / "dev.pem").unlink()
    OnlineKeys(repo.online).make("dev")
    with pytest.raises(Integrity, match="our key"):
        repo.publisher.publish("dev", add=[make_target()])
    assert repo.publisher.publish("prod", add=[make_target(fleet="prod")]).changed


@pytest.mark.parametrize("role", ["dev", "snapshot", "timestamp"])
def test_a_missing_key_is_named(repo: SignedRepository, role: str) -> None:
    (repo.online / f"{role}.pem").unlink()
    with pytest.raises(Conflict, match=role):
        repo.publisher.publish("dev", add=[make_target()])
    assert "2.dev.json" not in names(repo)


def test_before_the_ceremony_there_is_nothing_to_publish_to(tmp_path: Path) -> None:
    from tests.support.clock import FakeClock

    publisher = Publisher(tmp_path / "none", OnlineKeys(tmp_path), FakeClock())
    with pytest.raises(Conflict, match="facade trust init"):
        publisher.publish("dev", add=[make_target()])


def test_a_disk_that_refuses_leaves_what_was_current(repo: SignedRepository) -> None:
    (repo.metadata / "2.snapshot.json").mkdir()  # a rename onto a folder fails
    with pytest.raises(Unavailable, match=r"2\.snapshot\.json"):
        repo.publisher.publish("dev", add=[make_target()])
    assert repo.publisher.targets("dev") == {}
    assert client(repo).target("dev/app/v1") is None


def test_old_files_that_cannot_be_removed_spoil_no_publication(repo: SignedRepository) -> None:
    (repo.metadata / "old.writing").mkdir()
    with capture_logs() as logs:
        assert repo.publisher.publish("dev", add=[make_target()]).changed
    assert [entry["event"] for entry in logs] == ["metadata_clean_failed"]
    assert client(repo).target("dev/app/v1") is not None


def test_another_fleets_lost_role_spoils_no_publication(repo: SignedRepository) -> None:
    repo.publisher.publish("prod", add=[make_target(fleet="prod")])
    (repo.metadata / "2.prod.json").unlink()
    repo.clock.advance(2 * DAY)
    assert repo.publisher.publish("dev", add=[make_target()]).changed
    assert "1.prod.json" in names(repo)


def test_a_lock_that_cannot_be_had_is_said(tmp_path: Path, repo: SignedRepository) -> None:
    (repo.folder / "lock").unlink()
    (repo.folder / "lock").mkdir()
    with pytest.raises(Unavailable, match="locked"):
        repo.publisher.publish("dev", add=[make_target()])


def test_nothing_is_resigned_before_half_of_its_life(repo: SignedRepository) -> None:
    repo.clock.advance(DAY / 2 - 60)
    assert repo.publisher.resign() is False
    assert (repo.metadata / "1.snapshot.json").exists()


def test_timestamp_alone_is_resigned_after_half_a_day(repo: SignedRepository) -> None:
    repo.clock.advance(DAY / 2 + 1)
    assert repo.publisher.resign() is True
    assert repo.publisher.resign() is False
    assert "2.snapshot.json" not in names(repo)
    updater = client(repo).updater()
    assert updater.get_targetinfo("dev/app/v1") is None


def test_snapshot_is_resigned_after_half_a_week_and_fleets_after_half_their_life(
    repo: SignedRepository,
) -> None:
    repo.clock.advance(3.5 * DAY + 1)
    assert repo.publisher.resign()
    assert "2.snapshot.json" in names(repo)
    assert "2.dev.json" not in names(repo)
    repo.clock.advance(42 * DAY)
    assert repo.publisher.resign()
    assert {"2.dev.json", "2.prod.json", "3.snapshot.json"} <= names(repo)
    assert "2.targets.json" not in names(repo)


def test_what_has_expired_is_resigned_too(repo: SignedRepository) -> None:
    repo.clock.advance(timedelta(days=100).total_seconds())
    assert repo.publisher.resign()
    assert repo.publisher.publish("dev", add=[make_target()]).changed
