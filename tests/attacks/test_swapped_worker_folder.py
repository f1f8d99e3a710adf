"""A worker that was taken over puts a link where its folder was, to be given what it leads to."""

import os
from pathlib import Path

import pytest

from facade.errors import Invalid
from facade.workers.ground import MAX_SEED_BYTES, metadata_folders, open_to
from facade.workers.user import WorkerUser


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_worker_folder_swapped_by_a_link_is_not_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "etc", tmp_path / "worker-1"
    victim.mkdir()
    (victim / "passwd").write_text("root")
    folder.symlink_to(victim)
    with pytest.raises(Invalid, match="worker-1 cannot be opened to the user nobody"):
        open_to(WorkerUser.named("nobody"), through=[], read=[], own=[folder])
    assert victim.stat().st_uid == (victim / "passwd").stat().st_uid == 0


def test_what_a_worker_put_into_its_folder_is_not_followed_waited_for_or_swallowed(
    tmp_path: Path,
) -> None:
    """The next start copies it for a further worker, as root."""
    base, secret = tmp_path / "verified", tmp_path / "shadow"
    base.mkdir()
    secret.write_text("root:secret")
    (base / "timestamp.json").symlink_to(secret)
    (base / "folder").symlink_to(tmp_path)
    os.mkfifo(base / "snapshot.json")
    (base / "targets.json").write_text("{}")
    folders = metadata_folders(base, 2)
    found = list(folders[1].rglob("*"))
    assert [path.name for path in found if not path.is_dir()] == ["targets.json"]
    assert not any(path.is_symlink() for path in found)


def test_more_metadata_than_anybody_has_is_not_copied(tmp_path: Path) -> None:
    base = tmp_path / "verified"
    base.mkdir()
    with (base / "timestamp.json").open("wb") as file:
        file.truncate(MAX_SEED_BYTES + 1)
    with pytest.raises(Invalid, match="which no facade writes"):
        metadata_folders(base, 2)


def test_a_further_workers_folder_lies_in_none_that_another_owns(tmp_path: Path) -> None:
    base = tmp_path / "verified"
    base.mkdir()
    first, *others = metadata_folders(base, 3)
    assert all(first not in other.parents for other in others)
