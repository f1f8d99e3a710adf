"""Which of the processes that share a store keeps it in order.

Guarantees: at most one has the duty; when its process dies the kernel frees it, and another takes it
up. Uses `flock` on a file that is never removed.
"""

import fcntl
import os
from pathlib import Path

from facade.serving.blobs.partials import try_lock


class Duty:
    """The duty for one store, as one process sees it.

    Arguments:
        path: the lock file, made when absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def take(self) -> bool:
        """Have the duty from now on, unless another process has it. Blocks on the disk only.

        Raises OSError.
        """
        if self._fd >= 0:
            return True
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if try_lock(fd, fcntl.LOCK_EX):
            self._fd = fd
            return True
        os.close(fd)
        return False

    def close(self) -> None:
        """Leave it to others."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
