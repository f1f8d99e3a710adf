"""Forgetting by moving: gone under its name, empty, and never deleted."""

from pathlib import Path

import pytest

from tests.bench.aside import Aside


@pytest.fixture
def aside(tmp_path: Path) -> Aside:
    return Aside(tmp_path / "aside")


def test_a_file_is_gone_and_empty_with_the_inode_it_had(tmp_path: Path, aside: Aside) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"content")
    inode = blob.stat().st_ino
    aside.take([blob])
    (moved,) = (tmp_path / "aside").iterdir()
    assert not blob.exists()
    assert (moved.stat().st_ino, moved.stat().st_size, moved.stat().st_nlink) == (inode, 0, 1)


def test_a_folder_goes_with_everything_in_it(tmp_path: Path, aside: Aside) -> None:
    data = tmp_path / "blobs" / "ab" / "data"
    data.parent.mkdir(parents=True)
    data.write_bytes(b"content")
    aside.take((tmp_path / "blobs").rglob("ab"))
    assert list((tmp_path / "blobs").iterdir()) == []
    assert [path.stat().st_size for path in (tmp_path / "aside").rglob("data")] == [0]


def test_names_may_come_again_and_vanish(tmp_path: Path, aside: Aside) -> None:
    blob = tmp_path / "blob"
    for _ in range(2):
        blob.touch()
        aside.take([blob, blob])
    assert len(list((tmp_path / "aside").iterdir())) == 2
