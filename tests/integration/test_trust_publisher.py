"""What the control side's publisher signs, the serving side verifies, through real folders."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from facade.control.signing.ceremony import delegate
from facade.errors import Denied, Invalid, Unavailable
from facade.oci.digest import Digest
from facade.oci.request import PullRequest, Role
from facade.serving.trust.decision import Authorisation
from facade.serving.trust.fetcher import FolderSource
from facade.serving.trust.refresher import Refresher
from facade.serving.trust.served import MetadataFiles
from facade.serving.trust.verifier import Verifier
from facade.target import SignedTarget
from tests.support.signing import PASSPHRASE, SignedRepository, make_repository, make_target
from tests.support.trust import ManifestPile


@dataclass
class Installation:
    repository: SignedRepository
    verifier: Verifier
    refresher: Refresher
    authorisation: Authorisation


def _verifier(repository: SignedRepository, folder: Path) -> Verifier:
    pinned = repository.metadata.joinpath("1.root.json").read_bytes()
    return Verifier(pinned, folder, FolderSource(repository.metadata), repository.clock)


@pytest.fixture
async def installation(tmp_path: Path) -> AsyncIterator[Installation]:
    repository = make_repository(tmp_path, "dev", "prod")
    clock = repository.clock
    verifier = _verifier(repository, tmp_path / "serving")
    refresher = Refresher(verifier, clock=clock, fleets=["dev"])
    await refresher.start()
    manifests = ManifestPile()
    manifests.put(b"v1", b"v2")  # no manifests, so they reach nothing
    yield Installation(
        repository,
        verifier,
        refresher,
        Authorisation(views=refresher, manifests=manifests, clock=clock),
    )
    await refresher.stop()


def _request(target: SignedTarget) -> PullRequest:
    return PullRequest(Role.MANIFEST, target.registry, target.repository, target.digest)


async def _allowed(installation: Installation, target: SignedTarget) -> bool:
    try:
        allowed = await installation.authorisation.decide(target.fleet, _request(target))
    except Denied:
        return False
    return allowed.target == target


async def test_what_is_published_is_allowed_and_what_is_withdrawn_is_not(
    installation: Installation,
) -> None:
    first, second = make_target("v1"), make_target("v2")
    assert not await _allowed(installation, first)
    installation.repository.publisher.publish("dev", add=[first, second])
    assert not await _allowed(installation, first), "not before a refresh"
    await installation.refresher.refresh()
    assert await _allowed(installation, first)
    installation.repository.publisher.publish("dev", remove=[first.path])
    await installation.refresher.refresh()
    assert not await _allowed(installation, first)
    assert await _allowed(installation, second)
    assert not installation.refresher.view().problems


async def test_a_fleet_delegated_later_is_loaded_for_its_first_device(
    installation: Installation,
) -> None:
    repository = installation.repository
    target = make_target(fleet="late")
    assert not await _allowed(installation, target)
    delegate(
        repository.folder,
        repository.offline,
        repository.online,
        PASSPHRASE,
        ["late"],
        clock=repository.clock,
    )
    repository.reopened().publish("late", add=[target])
    await installation.refresher.refresh()
    assert "late" not in installation.refresher.view().fleets
    assert await _allowed(installation, target)


async def test_resigned_metadata_is_taken_up_without_reading_the_fleet_again(
    installation: Installation,
) -> None:
    installation.repository.publisher.publish("dev", add=[make_target()])
    await installation.refresher.refresh()
    before = installation.refresher.view()
    installation.repository.clock.advance(20 * 3600)
    assert installation.repository.publisher.resign()
    await installation.refresher.refresh()
    after = installation.refresher.view()
    assert after.expires["timestamp"] > before.expires["timestamp"]
    assert after.fleets["dev"] is before.fleets["dev"]


async def test_a_restart_remembers(installation: Installation, tmp_path: Path) -> None:
    installation.repository.publisher.publish("dev", add=[make_target()])
    await installation.refresher.refresh()
    again = _verifier(installation.repository, tmp_path / "serving").persisted(None, ["dev"])
    assert again.versions == installation.refresher.view().versions
    assert set(again.fleets["dev"].by_path) == {"dev/app/v1"}


async def test_devices_get_the_very_bytes_that_were_published(installation: Installation) -> None:
    installation.repository.publisher.publish("dev", add=[make_target()])
    installation.repository.publisher.publish("prod", add=[make_target(fleet="prod")])
    await installation.refresher.refresh()
    files = MetadataFiles(installation.verifier.served, installation.refresher)
    versions = installation.refresher.view().versions
    names = [
        "timestamp.json",
        *(f"{versions[role]}.{role}.json" for role in ("root", "snapshot", "targets", "dev")),
    ]
    for name in names:
        published = installation.repository.metadata.joinpath(name).read_bytes()
        assert Digest.of(await files.read(name, "dev")) == Digest.of(published)
    assert await files.read("2.prod.json", "prod")


async def test_a_restored_backup_is_refused_until_its_versions_are_advanced(
    installation: Installation, tmp_path: Path
) -> None:
    repository = installation.repository
    kept, lost = make_target("v1"), make_target("v2")
    repository.publisher.publish("dev", add=[kept])
    shutil.copytree(repository.folder, tmp_path / "backup")
    for version in ("v2", "v3", "v4"):
        repository.publisher.publish("dev", add=[make_target(version)])
    await installation.refresher.refresh()
    assert await _allowed(installation, lost)

    shutil.rmtree(repository.folder)
    shutil.copytree(tmp_path / "backup", repository.folder)
    with pytest.raises(Unavailable):  # a rollback, for all that the client can tell
        await installation.refresher.refresh()
    assert await _allowed(installation, lost), "what it knew stays in use"

    before = repository.reopened().advance(1)
    with pytest.raises(Unavailable):
        await installation.refresher.refresh()
    after = repository.reopened().advance(100)
    assert {role: after[role] - before[role] for role in after} == dict.fromkeys(
        ("dev", "prod", "snapshot", "timestamp"), 100
    )
    await installation.refresher.refresh()
    assert await _allowed(installation, kept)
    assert not await _allowed(installation, lost)
    assert not installation.refresher.view().problems


def test_versions_advance_within_reason(tmp_path: Path) -> None:
    repository = make_repository(tmp_path)
    for by in (0, -1, 10**9):
        with pytest.raises(Invalid, match="advance by"):
            repository.publisher.advance(by)
