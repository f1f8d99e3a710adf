"""A worker that was taken over puts a link where its folder was, to be given what it leads to."""

import os
from pathlib import Path

import pytest

from facade.errors import Invalid
from facade.workers.ground import open_to
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
