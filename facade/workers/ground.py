"""The folders that workers need: each its own verified metadata, all of them one place for sockets.

Guarantees: worker 0 keeps the folder that there was; a further one starts from a copy of it, so none can
be rolled back below what this node has verified. With a user of their own, workers own the cache, their
metadata and their sockets, may pass through (not list) the folders that lead there, and may read the
server's key, which they hold in memory anyway; the database is closed to others first. Blocking.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from facade.errors import Invalid
from facade.workers.user import WorkerUser

MAX_SOCKET_PATH = 100
"""Of the 107 bytes that a Unix socket's name may have."""
_TIMESTAMP = "timestamp.json"
_OF_A_WORKER = "worker-"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the sockets are."""

    folder: Path

    @property
    def control(self) -> Path:
        """Where the control side answers."""
        return self.folder / "control"

    @property
    def own(self) -> Path:
        """The folder that workers write to."""
        return self.folder / "w"

    def cache(self, index: int) -> Path:
        """Where worker `index` answers."""
        return self.own / str(index)


@contextmanager
def places(state: Path, user: WorkerUser | None) -> Iterator[Places]:
    """A folder for sockets: in the state folder, or a temporary one where that name is too long.

    Raises Invalid when it cannot be made.
    """
    folder = state / "run"
    temporary = len(os.fsencode(folder)) + len("/control") > MAX_SOCKET_PATH
    try:
        if temporary:
            folder = Path(tempfile.mkdtemp(prefix="facade-"))
        shutil.rmtree(folder, ignore_errors=True)  # what a killed one left
        made = Places(folder)
        made.own.mkdir(parents=True)
        folder.chmod(0o710)
        made.own.chmod(0o700)
        if user is not None:
            os.chown(folder, -1, user.gid)
            os.chown(made.own, user.uid, user.gid)
    except OSError as error:
        raise Invalid(f"The folder {folder} cannot be made: {error.strerror}.") from error
    try:
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def metadata_folders(base: Path, count: int) -> list[Path]:
    """A folder of verified metadata for each worker, seeded. Raises Invalid."""
    folders = [base, *(base / f"{_OF_A_WORKER}{index}" for index in range(1, count))]
    try:
        for folder in folders[1:]:
            _seed(base, folder)
    except OSError as error:
        raise Invalid(
            f"The folder {error.filename or base} cannot be used: {error.strerror}."
        ) from error
    return folders


def _seed(base: Path, folder: Path) -> None:
    """Let `folder` know what `base` knows, unless it knows as much."""
    if _version(base) <= _version(folder):
        return
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    ignore = shutil.ignore_patterns(f"{_OF_A_WORKER}*", f".{_OF_A_WORKER}*")
    shutil.copytree(base, beside, symlinks=True, ignore=ignore)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def _version(folder: Path) -> int:
    """Of the timestamp that was verified there; 0 when none was."""
    try:
        return int(json.loads((folder / _TIMESTAMP).read_bytes())["signed"]["version"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def open_to(
    user: WorkerUser, *, through: Sequence[Path], read: Sequence[Path], own: Sequence[Path]
) -> None:
    """Let `user` work. Raises Invalid, naming what could not be changed.

    Arguments:
        through: folders of ours that it may pass.
        read: files of ours that it may read.
        own: folders that become its own, with all that is in them.
    """
    try:
        for folder in through:
            os.chown(folder, -1, user.gid)
            folder.chmod(0o710)
        for file in read:
            os.chown(file, -1, user.gid)
            file.chmod(0o640)
        for folder in own:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _give(folder, user)
    except OSError as error:
        raise Invalid(
            f"{error.filename} cannot be opened to the user {user.name}: {error.strerror}."
        ) from error


def _give(folder: Path, user: WorkerUser) -> None:
    """Change the owner of everything below, unless that was done: a cache may be large.

    Follows no link: whoever was a worker before may have put one there, to be given what it leads to.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(top).st_uid == user.uid:
            return
        for _, folders, files, here in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            for name in (*folders, *files):
                os.chown(name, user.uid, user.gid, dir_fd=here, follow_symlinks=False)
        os.fchown(top, user.uid, user.gid)  # last: an interrupted one is done again
    finally:
        os.close(top)
