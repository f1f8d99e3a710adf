"""The first signing, and delegating to new fleets."""

import shutil
import time
from pathlib import Path

import pytest

from facade.control.signing.ceremony import (
    FleetDelegation,
    delegate,
    delegate_command,
    initialise,
)
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.publisher import Publisher
from facade.errors import Conflict, Denied, Integrity, Invalid
from facade.secret import Secret
from tests.support.clock import FakeClock
from tests.support.signing import PASSPHRASE, StockClient, make_repository, make_target


def test_a_stock_client_accepts_the_first_repository(tmp_path: Path) -> None:
    repo = make_repository(tmp_path, "dev", "prod")
    assert repo.publisher.fleets() == ("dev", "prod")
    assert StockClient(repo.metadata, repo.initialised.root).target("dev/app/v1") is None
    assert sorted(path.name for path in repo.metadata.iterdir()) == [
        "1.dev.json",
        "1.prod.json",
        "1.root.json",
        "1.snapshot.json",
        "1.targets.json",
        "timestamp.json",
    ]


def test_every_role_has_a_key_of_its_own(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    ids = [key_id for ids in repo.initialised.key_ids.values() for key_id in ids]
    assert len(ids) == len(set(ids)) == 4
    assert set(repo.initialised.thresholds.values()) == {1}
    assert {path.name for path in repo.online.iterdir()} == {
        "dev.pem",
        "snapshot.pem",
        "timestamp.pem",
    }


def test_root_can_have_a_threshold(tmp_path: Path) -> None:
    done = initialise(
        tmp_path / "r",
        tmp_path / "off",
        tmp_path / "on",
        PASSPHRASE,
        ["dev"],
        clock=FakeClock(time.time()),
        root_keys=3,
        root_threshold=2,
    )
    assert done.thresholds["root"] == 2
    assert len(done.key_ids["root"]) == 3
    StockClient(tmp_path / "r/metadata", done.root).updater()


@pytest.mark.parametrize(("keys", "threshold"), [(1, 2), (1, 0), (0, 0)])
def test_an_impossible_threshold_is_refused(tmp_path: Path, keys: int, threshold: int) -> None:
    with pytest.raises(Invalid, match="threshold"):
        initialise(
            tmp_path / "r",
            tmp_path / "off",
            tmp_path / "on",
            PASSPHRASE,
            [],
            clock=FakeClock(),
            root_keys=keys,
            root_threshold=threshold,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_repository_is_initialised_once(tmp_path: Path) -> None:
    make_repository(tmp_path)
    with pytest.raises(Conflict, match="already"):
        make_repository(tmp_path)


def test_a_ceremony_that_died_before_its_end_can_be_run_again(tmp_path: Path) -> None:
    first = make_repository(tmp_path)
    (first.metadata / "timestamp.json").unlink()
    with pytest.raises(Conflict, match="facade trust init"):
        first.publisher.fleets()
    again = make_repository(tmp_path)
    assert again.initialised.key_ids == first.initialised.key_ids
    assert again.publisher.publish("dev", add=[make_target()]).changed


def test_a_reserved_fleet_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        make_repository(tmp_path, "snapshot")
    repo = make_repository(tmp_path)
    with pytest.raises(Invalid):
        delegate(repo.folder, repo.offline, repo.online, PASSPHRASE, ["../x"], clock=repo.clock)


def test_several_fleets_are_delegated_ahead_in_one_ceremony(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    repo.publisher.publish("dev", add=[make_target()])
    new = delegate(
        repo.folder,
        repo.offline,
        repo.online,
        PASSPHRASE,
        ["beta", "dev", "prod", "beta"],
        clock=repo.clock,
    )
    assert new == ("beta", "prod")
    shutil.rmtree(repo.offline)
    target = make_target(fleet="prod")
    repo.reopened().publish("prod", add=[target])
    client = StockClient(repo.metadata, repo.initialised.root)
    assert client.target("prod/app/v1") == target
    assert client.target("dev/app/v1") == make_target()


def test_delegating_again_changes_nothing_and_needs_no_key(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    before = (repo.metadata / "timestamp.json").read_bytes()
    shutil.rmtree(repo.offline)
    done = delegate(repo.folder, repo.offline, repo.online, PASSPHRASE, ["dev"], clock=repo.clock)
    assert done == ()
    assert (repo.metadata / "timestamp.json").read_bytes() == before


def test_a_wrong_passphrase_delegates_nothing(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    with pytest.raises(Denied):
        delegate(repo.folder, repo.offline, repo.online, Secret("no"), ["prod"], clock=repo.clock)
    assert repo.publisher.fleets() == ("dev",)


def test_a_foreign_targets_key_delegates_nothing(tmp_path: Path) -> None:
    repo = make_repository(tmp_path / "a")
    other = make_repository(tmp_path / "b")
    with pytest.raises(Conflict, match="facade trust delegate"):
        delegate(repo.folder, other.offline, repo.online, PASSPHRASE, ["prod"], clock=repo.clock)


def delegation(base: Path, *, clock: FakeClock) -> FleetDelegation:
    return FleetDelegation(
        base / "trust",
        base / "online",
        clock,
        offline=base / "offline",
        passphrase_file=base / "passphrase",
    )


def test_a_fleet_is_added_while_the_targets_key_is_here(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    (tmp_path / "passphrase").write_text(PASSPHRASE.reveal() + "\n")
    adding = delegation(tmp_path, clock=repo.clock)
    assert adding.ensure("prod") is True
    assert adding.ensure("prod") is False
    assert repo.publisher.fleets() == ("dev", "prod")


@pytest.mark.parametrize("missing", ["offline", "passphrase", "both"])
def test_without_the_targets_key_the_offline_command_is_told(tmp_path: Path, missing: str) -> None:
    repo = make_repository(tmp_path)
    if missing == "passphrase":
        (tmp_path / "passphrase").write_text("")
    elif missing == "offline":
        (tmp_path / "passphrase").write_text(PASSPHRASE.reveal())
        shutil.rmtree(repo.offline)
    with pytest.raises(Conflict) as caught:
        delegation(tmp_path, clock=repo.clock).ensure("prod")
    assert delegate_command(repo.folder, repo.online, ["prod"]) in caught.value.message
    assert delegation(tmp_path, clock=repo.clock).ensure("dev") is False


def test_the_offline_command_can_be_pasted(tmp_path: Path) -> None:
    command = delegate_command(Path("/my trust"), Path("/on"), ["a", "b"])
    assert command == (
        "facade trust delegate a b --repository '/my trust' --online-keys /on "
        "--offline-keys DIR --passphrase-file FILE"
    )


def test_another_root_in_the_folder_gets_no_signature_of_ours(tmp_path: Path) -> None:
    """Whoever can write to the folder, and not to our keys, puts up a tree that names our key."""
    repo = make_repository(tmp_path / "ours")
    repo.publisher.publish("dev", add=[make_target()])
    evil = make_repository(tmp_path / "evil")
    OnlineKeys(evil.online).signer("dev")
    evil.publisher.publish("dev", add=[make_target("evil")])
    shutil.rmtree(repo.metadata)
    shutil.copytree(evil.metadata, repo.metadata)
    with pytest.raises(Integrity, match="our key"):
        repo.publisher.publish("dev", add=[make_target("v2")])
    (repo.online / "dev.pem").unlink()
    shutil.copy(evil.online / "dev.pem", repo.online)
    with pytest.raises(Integrity, match="snapshot"):
        Publisher(repo.folder, OnlineKeys(repo.online), repo.clock).publish(
            "dev", add=[make_target("v2")]
        )
