"""How much of the disk partial files may take, all together.

Guarantees: what is under way counts with its whole size from its first byte, what a broken transfer
left counts with its length; together they never pass the limit: the oldest leftovers make room, and
what then does not fit is refused before a byte of it is written. Knows of this process's ingests
only. Safe to use from several threads; everything but `bytes` blocks on the disk.
"""

import contextlib
import fcntl
import os
import sys
from pathlib import Path
from threading import Lock

from facade.errors import Unavailable
from facade.reasons import Reason

_PARTIAL = ".partial"


class Partials:
    """The partials of one store.

    Arguments:
        folder: where they lie; read once, now. Raises OSError.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._max_bytes = sys.maxsize
        self._lock = Lock()
        self._active: dict[Path, int] = {}
        found = [(path, path.stat()) for path in folder.iterdir() if path.suffix == _PARTIAL]
        found.sort(key=lambda each: each[1].st_mtime)
        self._left = {path: status.st_size for path, status in found}
        self._bytes = sum(self._left.values())

    @property
    def bytes(self) -> int:
        """What they take or will take, at most."""
        return self._bytes

    def limit(self, max_bytes: int) -> None:
        """From now on, allow no more than that."""
        self._max_bytes = max_bytes

    def reserve(self, path: Path, size: int) -> None:
        """Count `path`, which the caller has locked, with `size` bytes until `release`.

        Raises Unavailable when they do not fit; then the file is deleted.
        """
        with self._lock:
            self._bytes -= self._left.pop(path, 0)
            if size <= self._max_bytes:
                for old in list(self._left):
                    if self._bytes + size <= self._max_bytes:
                        break
                    self._drop(old)
            if self._bytes + size > self._max_bytes:
                with contextlib.suppress(OSError):
                    path.unlink()
                raise Unavailable(
                    f"The store has no room for {size} bytes more: it may hold "
                    f"{self._max_bytes} (store.max_bytes).",
                    reason=Reason.INTERNAL,
                )
            self._active[path] = size
            self._bytes += size

    def release(self, path: Path) -> None:
        """Count `path`, still locked by the caller, with what is left of it."""
        with self._lock:
            self._bytes -= self._active.pop(path, 0)
            with contextlib.suppress(OSError):
                self._left[path] = path.stat().st_size
                self._bytes += self._left[path]

    def sweep(self, older_than: float) -> int:
        """Delete those last written before `older_than` (Unix seconds) that nobody writes, and
        drafts as old that a dead process left. Returns how many. Raises OSError.
        """
        count = 0
        with self._lock:
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path not in self._active and path.stat().st_mtime < older_than:
                        count += self._drop(path)
        return count

    def _drop(self, path: Path) -> bool:
        """Delete a leftover, unless somebody has just taken it up."""
        try:
            fd = lock_partial(path)
        except Unavailable:
            return False
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            os.close(fd)
        self._bytes -= self._left.pop(path, 0)
        return True


def lock_partial(path: Path) -> int:
    """Open and lock a partial, making it when absent. Blocks on the disk, never on the lock.

    Raises Unavailable when another holds it or the disk refuses.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unavailable(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(fd, path):
                return fd
        except OSError as error:
            os.close(fd)
            raise unavailable(error) from error
        os.close(fd)  # published or removed between open and lock: its name is another file's now


def _same_file(fd: int, path: Path) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), named)


def unavailable(error: OSError) -> Unavailable:
    """What the disk refused, in words."""
    return Unavailable(f"The store cannot take it: {error.strerror}.", reason=Reason.INTERNAL)
