"""The signing repository is one that a stock TUF client accepts, until it is told to misbehave."""

import itertools
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, RepositoryError
from tuf.ngclient import Updater

from facade.serving.trust.fetcher import BASE_URL, FolderSource, MetadataFetcher, Source
from tests.support.clock import FakeClock
from tests.support.tuf_repo import RepoSource, TufRepo, signed_target


def _updater(repo: TufRepo, folder: Path, source: Source | None = None) -> Updater:
    folder.mkdir(exist_ok=True)
    fetcher = MetadataFetcher(source or RepoSource(repo), FakeClock())
    return Updater(str(folder), BASE_URL, fetcher=fetcher, bootstrap=repo.pinned)


def test_a_stock_client_finds_a_published_target(tmp_path: Path) -> None:
    repo = TufRepo(["dev", "prod"])
    target = signed_target("dev/app/v1", b"manifest")
    repo.publish(target)
    found = _updater(repo, tmp_path).get_targetinfo("dev/app/v1")
    assert found is not None
    assert found.hashes == {"sha256": target.digest.hex}
    assert found.custom == target.custom
    assert _updater(repo, tmp_path).get_targetinfo("prod/app/v1") is None


def test_a_stock_client_follows_rotated_roots_and_keys(tmp_path: Path) -> None:
    repo = TufRepo(root_keys=3, root_threshold=2)
    repo.rotate_root()
    repo.rotate_root(renew=["snapshot", "timestamp"])
    repo.rotate_key("dev")
    repo.bump("targets")
    repo.publish(signed_target("dev/app/v1"))
    assert _updater(repo, tmp_path).get_targetinfo("dev/app/v1") is not None


def test_what_is_signed_with_the_wrong_key_is_refused_by_a_stock_client(tmp_path: Path) -> None:
    repo = TufRepo()
    repo.put("timestamp", repo.timestamp, repo.signers["snapshot"])
    with pytest.raises(RepositoryError):
        _updater(repo, tmp_path).refresh()


def test_a_written_folder_serves_the_same(tmp_path: Path) -> None:
    repo = TufRepo()
    repo.publish(signed_target("dev/app/v1"))
    repo.write(tmp_path / "out")
    updater = _updater(repo, tmp_path / "client", FolderSource(tmp_path / "out"))
    assert updater.get_targetinfo("dev/app/v1") is not None


def test_the_source_misbehaves_when_told_to() -> None:
    source = RepoSource(TufRepo())
    with pytest.raises(DownloadHTTPError):
        list(source.chunks("2.root.json"))
    source.failing["1.root.json"] = ConnectionError()
    with pytest.raises(ConnectionError):
        list(source.chunks("1.root.json"))
    source.endless.add("timestamp.json")
    assert len(list(itertools.islice(source.chunks("timestamp.json"), 100))) == 100
    assert source.requests == ["2.root.json", "1.root.json", "timestamp.json"]
