"""Where participants' blobs go that they are to forget: aside, on the same file system, and emptied.

Guarantees: what was moved is no longer found under its name, takes no room, and keeps its inode until the
whole stand is removed. A deleted file does not: ext4 walks past each inode deleted within the last minutes when it
makes the next file, and whoever still has the file open frees its blocks when he closes it. A blob
that was never there costs neither.
"""

import contextlib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path


class Aside:
    """One such folder.

    Arguments:
        folder: made here; on the participants' file system.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._numbers = itertools.count()

    def take(self, paths: Iterable[Path]) -> None:
        """Take files, or folders with all that is in them; what vanishes meanwhile is no error."""
        for path in list(paths):
            with contextlib.suppress(FileNotFoundError):
                self._empty(path.rename(self._folder / str(next(self._numbers))))

    def _empty(self, path: Path) -> None:
        # Not only for the room: who has it open notices, as he does when it is deleted.
        for each in [path, *path.rglob("*")]:
            if each.is_file():
                os.truncate(each, 0)
