"""Writing files that outlive a crash.

Guarantees: after `write_file` returns, the file holds all of the bytes or, if the machine stops
before, its old content or nothing: never a part. Readers see the old or the new file. Does not
serialise writers: the repository's lock does.
"""

import os
from pathlib import Path

from facade.errors import Unavailable

TEMPORARY_SUFFIX = ".writing"


def write_file(path: Path, data: bytes, *, mode: int = 0o644, mtime: float | None = None) -> None:
    """Write `data` beside `path`, flush it to disk, and rename it into place.

    Arguments:
        mode: permissions, set before the first byte is written.
        mtime: modification time, Unix seconds; None = now.

    Raises Unavailable when the disk refuses.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, for its mode
            os.fchmod(descriptor, mode)  # whatever the umask says
            file.write(data)
            file.flush()
            if mtime is not None:
                os.utime(descriptor, (mtime, mtime))
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}.") from error


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to disk (a rename is not durable before that)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be flushed to disk: {error.strerror}.") from error


def make_folder(folder: Path, mode: int) -> None:
    """Make `folder` and its parents. Raises Unavailable when that is not possible."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"The folder {folder} cannot be made: {error.strerror}.") from error
