"""The folder fetcher and the stock client of tests/support/signing.py."""

from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError

from tests.support.clock import FakeClock
from tests.support.signing import FolderFetcher, StockClient, make_repository, make_target


def test_a_missing_file_is_a_404(tmp_path: Path) -> None:
    (tmp_path / "1.a b.json").write_bytes(b"x")
    fetcher = FolderFetcher(tmp_path)
    assert fetcher.download_bytes("https://trust.example/1.a%20b.json", 10) == b"x"
    with pytest.raises(DownloadHTTPError) as caught:
        fetcher.download_bytes("https://trust.example/2.root.json", 10)
    assert caught.value.status_code == 404


def test_the_client_judges_by_the_machines_clock(tmp_path: Path) -> None:
    old = make_repository(tmp_path, clock=FakeClock(1_000_000_000.0))
    with pytest.raises(ExpiredMetadataError):
        StockClient(old.metadata, old.initialised.root).updater()


def test_the_client_remembers_what_it_verified(tmp_path: Path) -> None:
    repo = make_repository(tmp_path / "a")
    repo.publisher.publish("dev", add=[make_target()])
    client = StockClient(repo.metadata, repo.initialised.root, tmp_path / "state")
    assert client.target("dev/app/v1") == make_target()
    assert client.target("dev/app/v2") is None
    assert (tmp_path / "state" / "snapshot.json").exists()
