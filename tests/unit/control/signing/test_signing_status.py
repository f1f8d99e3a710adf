"""What trust status says."""

import shutil
from pathlib import Path

import pytest

from facade.control.signing.keys import OnlineKeys
from facade.control.signing.status import RoleStatus, TrustStatus, trust_status
from facade.errors import Conflict
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
