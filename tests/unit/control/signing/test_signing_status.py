"""What trust status says."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import MetaFile

from facade.control.signing.keys import OnlineKeys
from facade.control.signing.repository import MetadataRepository
from facade.control.signing.status import RoleStatus, TrustStatus, trust_status
from facade.errors import Conflict, Integrity
from tests.support.clock import FakeClock
from tests.support.signing import SignedRepository, make_repository, make_target

DAY = 86_400.0


def read(repo: SignedRepository) -> TrustStatus:
    keys = OnlineKeys(repo.online)
    return trust_status(repo.folder, keys, offline=repo.offline, clock=repo.clock)


def role(repo: SignedRepository, name: str) -> RoleStatus:
    return next(role for role in read(repo).roles if role.name == name)


def test_every_role_is_there_with_version_expiry_and_keys(tmp_path: Path) -> None:
    repo = make_repository(tmp_path, "prod", "dev")
    repo.publisher.publish("dev", add=[make_target()])
    roles = read(repo).roles
    assert [(role.name, role.version, role.offline, role.targets) for role in roles] == [
        ("root", 1, True, None),
        ("targets", 1, True, None),
        ("snapshot", 2, False, None),
        ("timestamp", 2, False, None),
        ("dev", 2, False, 1),
        ("prod", 1, False, 0),
    ]
    assert {role.name: role.key_ids for role in roles[:4]} == repo.initialised.key_ids
    assert all(role.keys_at_hand == role.threshold == 1 for role in roles)
    assert roles[0].expires == pytest.approx(repo.clock.time() + 365 * DAY, abs=1)


def test_offline_keys_carried_away_are_not_at_hand(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    assert read(repo).offline_keys_at_hand
    shutil.rmtree(repo.offline)
    assert not read(repo).offline_keys_at_hand
    assert role(repo, "root").keys_at_hand == 0
    assert trust_status(
        repo.folder, OnlineKeys(repo.online), offline=None, clock=repo.clock
    ) == read(repo)


def test_it_warns_sixty_days_before_offline_roles_expire(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    status, start = read(repo), repo.clock.time()
    assert status.warnings(start) == ()
    long_after = TrustStatus(tuple(role for role in status.roles if role.offline))
    assert long_after.warnings(start + 304 * DAY) == ()
    root, targets = long_after.warnings(start + 306 * DAY)
    assert "root expires in 5" in root
    assert "facade trust renew" in targets
    assert "has expired" in long_after.warnings(start + 366 * DAY)[0]


def test_an_online_role_that_expired_or_lost_its_key_is_warned_about(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    (repo.online / "dev.pem").unlink()
    (missing,) = read(repo).warnings(repo.clock.time())
    assert "role dev" in missing
    assert f"is not in {repo.online}" in missing
    expired = read(repo).warnings(repo.clock.time() + 2 * DAY)
    assert any("timestamp has expired" in line for line in expired)


def test_an_online_key_that_is_there_and_unfit_says_what_to_do(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    (repo.online / "dev.pem").chmod(0o644)
    (unfit,) = read(repo).warnings(repo.clock.time())
    assert f"chmod 600 {repo.online / 'dev.pem'}" in unfit


def test_before_the_ceremony_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="facade trust init"):
        trust_status(tmp_path, OnlineKeys(tmp_path), offline=None, clock=FakeClock())


def test_a_role_that_was_verified_is_looked_at_again_by_its_hash(tmp_path: Path) -> None:
    repo = make_repository(tmp_path, "dev")
    repo.publisher.publish("dev", add=[make_target("v1")])
    files, keys = MetadataRepository(repo.folder, repo.clock), OnlineKeys(repo.online)

    def again() -> TrustStatus:
        return trust_status(files, keys, offline=repo.offline, clock=repo.clock)

    assert again() == again() == read(repo)
    repo.publisher.publish("dev", add=[make_target("v2")])
    assert again() == read(repo)
    assert next(role for role in again().roles if role.name == "dev").targets == 2
    file = repo.metadata / "3.dev.json"
    sound = file.read_bytes()
    for spoiled in (sound.replace(b"v2", b"v3"), sound + b" ", b""):
        file.write_bytes(spoiled)
        with pytest.raises(Integrity):
            again()
    file.write_bytes(sound)
    assert again() == read(repo)
    file.unlink()
    with pytest.raises(Integrity):
        again()


def test_another_key_of_the_fleet_is_another_role_to_verify(tmp_path: Path) -> None:
    """Same file and hash, but targets names a key that did not sign it."""
    repo = make_repository(tmp_path, "dev")
    files = MetadataRepository(repo.folder, repo.clock)
    current = files.current()
    files.summary(current, "dev")
    targets = copy.deepcopy(current.targets)
    delegations = targets.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    stranger = CryptoSigner.generate_ed25519().public_key
    (known,) = delegations.roles["dev"].keyids
    delegations.keys[known] = SSlibKey(known, stranger.keytype, stranger.scheme, stranger.keyval)
    snapshot = copy.deepcopy(current.snapshot)
    snapshot.signed.meta["targets.json"] = MetaFile.from_data(1, targets.to_bytes(), ["sha256"])
    with pytest.raises(Integrity):
        files.summary(replace(current, targets=targets, snapshot=snapshot), "dev")
