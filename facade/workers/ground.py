"""The folders that workers need: each its own verified metadata, all of them one place for sockets.

Guarantees: worker 0 keeps the folder that there was; a further one starts from a copy of it, so none can
be rolled back below what this node has verified. With a user of their own, workers own the cache, their
metadata and their sockets, may pass through (not list) the folders that lead there, and may read the
server's key, which they hold in memory anyway; the database is closed to others first. Blocking.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from facade.errors import Invalid
from facade.workers.user import WorkerUser

MAX_SOCKET_PATH = 100
"""Of the 107 bytes that a Unix socket's name may have."""
MAX_SEED_BYTES = 256 * 1024 * 1024
"""A thousand fleets of usual size, several versions of each."""


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
    """A folder of verified metadata for each worker; a new one is seeded. Raises Invalid.

    They stand beside `base`, not in it: whoever owns a folder may replace what is in it by a link.
    """
    folders = [base, *(base.with_name(f"{base.name}-{index}") for index in range(1, count))]
    try:
        for folder in folders[1:]:
            if base.is_dir() and not os.path.lexists(folder):
                _seed(base, folder)
    except OSError as error:
        raise Invalid(
            f"The folder {error.filename or base} cannot be used: {error.strerror}."
        ) from error
    return folders


def _seed(base: Path, folder: Path) -> None:
    """Let `folder`, which is not there yet, know what `base` knows.

    What lies in `base` is a worker's to choose: no link is followed, nothing but files is read, and
    of those so much that an honest one never has more. Raises OSError, Invalid.
    """
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(mode=0o700)
    left = MAX_SEED_BYTES
    top = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for inside, folders, files, here in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            for name in folders:
                (beside / inside / name).mkdir(mode=0o700)
            for name in files:
                data = _read(name, here, left)
                if data is not None:
                    left -= len(data)
                    (beside / inside / name).write_bytes(data)
    finally:
        os.close(top)
    beside.rename(folder)


def _read(name: str, folder: int, limit: int) -> bytes | None:
    """A file of the open `folder`, None for what is none (tuf makes its link to the root again).

    Raises Invalid beyond `limit` bytes.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except OSError:  # a link, a socket
        return None
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Invalid(
            f"There are more than {MAX_SEED_BYTES} bytes of verified metadata, which no facade "
            "writes. Look at that folder (trust.metadata_dir) before you start again."
        )
    return data


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
            if file.stat().st_mode & stat.S_IROTH:
                continue  # whoever passes the folders reads it already
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
