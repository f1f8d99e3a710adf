"""The state folder: private files, one process at a time, whole writes."""

import os
import stat
from pathlib import Path

import pytest

from facade.errors import Conflict, Invalid
from facade.up.state import PRIVATE, StateFolder, write


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_private(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "deep" / "state")
    state.create()
    state.create()
    assert _mode(state.root) == 0o700


def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(Invalid, match="cannot be made"):
        StateFolder(tmp_path / "state").create()


def test_a_second_process_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    lock = state.lock()
    with pytest.raises(Conflict, match=rf"in use by another facade \(PID {os.getpid()}\)"):
        state.lock()
    lock.release()
    state.lock().release()


def test_secrets_are_written_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "api-key"
    write(path, "one", PRIVATE)
    write(path, b"two", PRIVATE)
    assert path.read_text() == "two"
    assert _mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_impossible_write_names_the_file_and_leaves_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "old").write_text("kept")
    with pytest.raises(Invalid, match="taken cannot be written"):
        write(folder, "x")
    assert (folder / "old").read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
