"""What a refresh reads, takes over, drops and remembers."""

import gc
import sys
import time
from pathlib import Path
from types import FrameType

import pytest
from tuf.api.metadata import Metadata, MetaFile, TargetFile, Targets

from facade.errors import Unavailable
from facade.serving.trust.verifier import Verifier
from tests.support.clock import FakeClock
from tests.support.tuf_repo import RepoSource, TufRepo, signed_target, target_file


@pytest.fixture
def repo() -> TufRepo:
    repo = TufRepo(["dev", "prod"])
    repo.publish(signed_target("dev/app/v1", b"one"))
    return repo


@pytest.fixture
def source(repo: TufRepo) -> RepoSource:
    return RepoSource(repo)


@pytest.fixture
def verifier(repo: TufRepo, source: RepoSource, tmp_path: Path) -> Verifier:
    return Verifier(repo.pinned, tmp_path / "m", source, FakeClock(time.time()))


def test_only_fleets_that_were_asked_for_are_loaded(verifier: Verifier, source: RepoSource) -> None:
    view = verifier.refresh(None, ["dev", "nobody", "timestamp"])
    assert set(view.fleets) == {"dev"}
    assert view.known_fleets == {"dev", "prod"}
    assert view.versions == {
        "root": 1,
        "timestamp": 2,
        "snapshot": 2,
        "targets": 1,
        "dev": 2,
    }
    assert view.expires.keys() == view.versions.keys()
    assert not [name for name in source.requests if "prod" in name]


def test_an_unchanged_fleet_is_taken_over_unread(
    repo: TufRepo, verifier: Verifier, source: RepoSource, tmp_path: Path
) -> None:
    before = verifier.refresh(None, ["dev", "prod"])
    (tmp_path / "m" / "dev.json").unlink()
    source.requests.clear()
    repo.publish(signed_target("prod/app/v1"))
    after = verifier.refresh(before, ["dev", "prod"])
    assert after.fleets["dev"] is before.fleets["dev"]
    assert after.fleets["prod"] is not before.fleets["prod"]
    assert after.generation == before.generation + 1
    assert not [name for name in source.requests if "dev" in name]


def test_what_is_persisted_is_for_nobody_else_and_replaces_what_a_full_disk_left(
    verifier: Verifier, tmp_path: Path
) -> None:
    """tuf makes its files so; a fleet's is ours to make."""
    folder = tmp_path / "m"
    (folder / ".dev.json.new").write_bytes(b"half of it")
    (folder / ".dev.json.new").chmod(0o644)
    verifier.refresh(None, ["dev"])
    modes = {path.name: path.stat().st_mode & 0o077 for path in folder.glob("*.json")}
    assert "dev.json" in modes
    assert set(modes.values()) == {0}, modes
    assert not (folder / ".dev.json.new").exists()


def test_a_changed_fleet_is_parsed_and_verified_once(repo: TufRepo, verifier: Verifier) -> None:
    """10,000 targets take a quarter of a second of a thread that holds the interpreter for most of it."""
    before = verifier.refresh(None, ["dev"])
    repo.publish(signed_target("dev/app/v2"))
    data, parsed, verified = repo.files["3.dev.json"], [], []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is Metadata.from_bytes.__func__.__code__:  # type: ignore[attr-defined]
            parsed.append(frame.f_locals["data"])
        elif event == "call" and frame.f_code is Targets.verify_delegate.__code__:
            verified.append(frame.f_locals["delegated_role"])

    sys.setprofile(watch)
    try:
        after = verifier.refresh(before, ["dev"])
    finally:
        sys.setprofile(None)
    assert "dev/app/v2" in after.fleets["dev"].by_path
    assert parsed.count(data) == 1
    assert verified.count("dev") == 1


def test_a_role_that_is_not_right_is_not_kept(
    repo: TufRepo, verifier: Verifier, tmp_path: Path
) -> None:
    before = verifier.refresh(None, ["dev"])
    kept = (tmp_path / "m" / "dev.json").read_bytes()
    repo.fleets["dev"].version += 1
    repo.put("dev", repo.fleets["dev"], repo.signers["targets"])
    repo.publish()
    view = verifier.refresh(before, ["dev"])
    assert "0/1 keys" in view.failed["dev"].message
    assert (tmp_path / "m" / "dev.json").read_bytes() == kept


def test_a_role_of_which_the_snapshot_says_no_hash_is_fetched_by_its_version(
    repo: TufRepo, verifier: Verifier, source: RepoSource
) -> None:
    before = verifier.refresh(None, ["dev"])
    repo.fleets["dev"].targets.clear()
    repo.publish(fleets=["dev"])
    repo.snapshot.meta["dev.json"] = MetaFile(3)
    repo.publish()
    source.requests.clear()
    view = verifier.refresh(before, ["dev"])
    assert view.versions["dev"] == 3
    assert not view.fleets["dev"].by_path
    assert source.requests.count("3.dev.json") == 1


def test_a_restart_does_not_fetch_again_what_it_has(
    repo: TufRepo, verifier: Verifier, source: RepoSource, tmp_path: Path
) -> None:
    verifier.refresh(None, ["dev"])
    source.requests.clear()
    again = Verifier(repo.pinned, tmp_path / "m", source, FakeClock(time.time()))
    assert set(again.refresh(None, ["dev"]).fleets) == {"dev"}
    assert not [name for name in source.requests if "dev" in name]


def test_a_withdrawn_target_is_gone(repo: TufRepo, verifier: Verifier) -> None:
    before = verifier.refresh(None, ["dev"])
    del repo.fleets["dev"].targets["dev/app/v1"]
    repo.publish(fleets=["dev"])
    assert not verifier.refresh(before, ["dev"]).fleets["dev"].by_path


@pytest.mark.parametrize(
    "custom", [None, {}, {"oci": {"registry": "GHCR.IO", "repository": "a"}}, {"oci": []}]
)
def test_a_malformed_custom_drops_that_target_and_says_so(
    repo: TufRepo, verifier: Verifier, custom: object
) -> None:
    file = target_file(signed_target("dev/app/v2"))
    repo.fleets["dev"].targets["dev/app/v2"] = TargetFile(
        file.length, file.hashes, "dev/app/v2", {} if custom is None else {"custom": custom}
    )
    repo.publish(fleets=["dev"])
    view = verifier.refresh(None, ["dev"])
    assert set(view.fleets["dev"].by_path) == {"dev/app/v1"}
    assert any("dev/app/v2" in problem for problem in view.problems)


def test_a_fleet_whose_file_is_missing_stops_alone(
    repo: TufRepo, verifier: Verifier, source: RepoSource
) -> None:
    repo.publish(signed_target("dev/app/v2"))
    del repo.files["3.dev.json"]
    view = verifier.refresh(None, ["dev", "prod"])
    assert set(view.fleets) == {"prod"}
    assert set(view.failed) == {"dev"}
    assert any("fleet dev" in problem for problem in view.problems)


def test_a_removed_fleet_is_no_longer_known(repo: TufRepo, verifier: Verifier) -> None:
    before = verifier.refresh(None, ["dev"])
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    del repo.targets.delegations.roles["dev"]
    repo.bump("targets")
    repo.publish()
    view = verifier.refresh(before, ["dev"])
    assert view.known_fleets == {"prod"}
    assert not view.fleets


def test_a_restart_serves_what_was_verified_before_when_the_source_is_away(
    repo: TufRepo, verifier: Verifier, source: RepoSource, tmp_path: Path
) -> None:
    verifier.refresh(None, ["dev"])
    source.failing["timestamp.json"] = ConnectionRefusedError()
    clock = FakeClock(time.time())
    again = Verifier(repo.pinned, tmp_path / "m", source, clock)
    with pytest.raises(Unavailable):
        again.refresh(None, ["dev"])
    view = again.persisted(None, ["dev", "prod"])
    assert set(view.fleets) == {"dev"}
    assert set(view.failed) == {"prod"}
    clock.advance(86_400)
    with pytest.raises(Unavailable, match="expired"):
        again.persisted(None, ["dev"])


def test_nothing_persisted_is_unavailable(verifier: Verifier) -> None:
    with pytest.raises(Unavailable):
        verifier.persisted(None, ["dev"])


@pytest.mark.parametrize("pinned", [b"", b"{}", b"nonsense"])
def test_a_pinned_root_that_is_none_is_refused_at_once(pinned: bytes, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="pinned root"):
        Verifier(pinned, tmp_path, RepoSource(TufRepo()), FakeClock())


def test_a_pinned_root_without_its_signature_is_refused(tmp_path: Path) -> None:
    repo = TufRepo()
    forged = repo.put("root", repo.root, repo.signers["targets"])
    with pytest.raises(Unavailable, match="0/1 keys"):
        Verifier(forged, tmp_path, RepoSource(repo), FakeClock())


def test_another_installations_folder_is_no_danger(verifier: Verifier, tmp_path: Path) -> None:
    verifier.refresh(None, ["dev"])
    other = TufRepo(["dev"])
    view = Verifier(
        other.pinned, tmp_path / "m", RepoSource(other), FakeClock(time.time())
    ).refresh(None, ["dev"])
    assert not view.fleets["dev"].by_path


def test_the_garbage_collector_is_left_as_it_was(verifier: Verifier) -> None:
    verifier.refresh(None, ["dev"])
    assert gc.isenabled()


def test_a_fleet_without_its_line_in_the_snapshot_stops_alone(
    repo: TufRepo, verifier: Verifier
) -> None:
    repo.delegate("late")
    del repo.snapshot.meta["late.json"]
    repo.bump("targets")
    repo.publish()
    view = verifier.refresh(None, ["dev", "late"])
    assert "snapshot" in view.failed["late"].message
    assert set(view.fleets) == {"dev"}


def test_an_installation_without_fleets_is_valid(tmp_path: Path) -> None:
    repo = TufRepo([])
    repo.targets.delegations = None
    repo.bump("targets")
    repo.publish()
    verifier = Verifier(repo.pinned, tmp_path, RepoSource(repo), FakeClock(time.time()))
    assert verifier.refresh(None, ["dev"]).known_fleets == frozenset()


def test_a_root_kept_under_a_wrong_number_is_no_successor(
    repo: TufRepo, verifier: Verifier, tmp_path: Path
) -> None:
    verifier.refresh(None, ["dev"])
    repo.root.version = 3
    data = repo.put("root", repo.root)
    tmp_path.joinpath("m", "root_history", "2.root.json").write_bytes(data)
    assert verifier.persisted(None, ["dev"]).versions["root"] == 1
