"""The node's key: made once, private, refused when it is not."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facade.errors import Invalid, Unavailable
from facade.serving.blobs.nodekey import load_node_key


def test_it_is_made_once_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "node.key"
    key = load_node_key(path)
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_node_key(path) == key
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]


def test_two_nodes_have_two_keys(tmp_path: Path) -> None:
    assert load_node_key(tmp_path / "a") != load_node_key(tmp_path / "b")


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    load_node_key(path)
    path.chmod(0o640)
    with pytest.raises(Invalid, match="chmod 600"):
        load_node_key(path)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_damaged_key_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(Invalid, match="damaged"):
        load_node_key(path)


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        load_node_key(tmp_path)


def test_started_many_times_at_once_there_is_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as executor:
        keys = set(executor.map(load_node_key, [tmp_path / "node.key"] * 8))
    assert keys == {load_node_key(tmp_path / "node.key")}
