"""Files that outlive a crash."""

import os
import stat
from pathlib import Path

import pytest

from facade.control.signing.files import make_folder, sync_folder, write_file
from facade.errors import Unavailable


def test_a_file_is_replaced_whole_with_its_mode_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_file(path, b"old")
    before = os.umask(0o077)
    try:
        write_file(path, b"new", mode=0o644, mtime=1_000_000.0)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_mtime == 1_000_000.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_what_a_dead_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "a.json.writing").write_bytes(b"half")
    write_file(tmp_path / "a.json", b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_link_left_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "a.json.writing").symlink_to(victim)
    write_file(tmp_path / "a.json", b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "a.json").is_symlink()


def test_a_disk_that_refuses_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="written"):
        write_file(tmp_path / "none" / "a.json", b"x")
    with pytest.raises(Unavailable, match="flushed"):
        sync_folder(tmp_path / "none")
    with pytest.raises(Unavailable, match="made"):
        make_folder(tmp_path / "file" / "below", 0o700)
