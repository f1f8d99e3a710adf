"""How much of the disk partial files may take, all together, whichever process writes them.

Guarantees: what is under way counts with its whole size from its first byte (its name tells it), what
a broken transfer left counts with what it takes; together they never pass the limit: the oldest leftovers
make room, and what then does not fit is refused before a byte of it is written. What another process
writes is told by its lock. Safe to use from several threads and processes; everything blocks on the
disk. The folder is small: it is read anew each time.
"""

import contextlib
import fcntl
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.blobs.layout import PARTIAL, declared_size, taken
from facade.serving.blobs.port import Busy

REPLACED_MODE = 0o700
"""The mark of a replaced partial: unlike an extended attribute, every file system has it, and unlike names
it stays true whatever becomes of the new one. Partials are made with 0o600."""


@dataclass(frozen=True, slots=True, order=True)
class _Found:
    """A partial: when it was written last, what it counts with, and whether nobody writes it."""

    written: float
    path: Path
    bytes: int
    left: bool


class Partials:
    """The partials of one store.

    Arguments:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._max_bytes = sys.maxsize
        self._lock = Lock()
        self._active: dict[Path, int] = {}

    def count(self) -> int:
        """Bytes that they take or will take, at most. Raises OSError."""
        with self._lock:
            return sum(each.bytes for each in self._look())

    def limit(self, max_bytes: int) -> None:
        """From now on, allow no more than that."""
        self._max_bytes = max_bytes

    def reserve(self, path: Path, size: int) -> None:
        """Count `path`, which the caller has locked, with `size` bytes until `release`.

        Raises Unavailable when they do not fit; then the file is deleted.
        """
        with self._lock:
            self._active[path] = size
            try:
                if self._most() <= self._max_bytes or self._make_room(size):
                    return
            except OSError as error:
                del self._active[path]
                raise unavailable(error) from error
            del self._active[path]
            with contextlib.suppress(OSError):
                path.unlink()
        raise Unavailable(
            f"The store has no room for {size} bytes more: it may hold "
            f"{self._max_bytes} (store.max_bytes).",
            reason=Reason.INTERNAL,
        )

    def release(self, path: Path) -> None:
        """Count `path`, still locked by the caller, with what is left of it."""
        with self._lock:
            self._active.pop(path, None)

    def sweep(self, older_than: float) -> int:
        """Delete those last written before `older_than` (Unix seconds) that nobody writes, and
        drafts as old that a dead process left. Returns how many. Raises OSError.
        """
        count = 0
        with self._lock:
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if path not in self._active and path.stat().st_mtime < older_than:
                        count += _drop(path)
        return count

    def _most(self) -> int:
        """What they can take at the very most: cheap, and nearly always little enough."""
        found = {path: max(declared_size(path), taken(status)) for path, status in self._files()}
        return sum((found | self._active).values())

    def _make_room(self, size: int) -> bool:
        """Delete leftovers, if that helps; whether all is within the limit then."""
        found = sorted(self._look())
        total = sum(each.bytes for each in found)
        for each in found:
            if total <= self._max_bytes or size > self._max_bytes:
                break
            if each.left and _drop(each.path):
                total -= each.bytes
        return total <= self._max_bytes

    def _look(self) -> list[_Found]:
        found = []
        for path, status in self._files():
            if path in self._active:
                continue
            left = _is_left(path)
            counts = taken(status) if left else max(status.st_size, declared_size(path))
            found.append(_Found(status.st_mtime, path, counts, left))
        ours = [
            _Found(sys.float_info.max, path, size, False) for path, size in self._active.items()
        ]
        return found + ours

    def _files(self) -> list[tuple[Path, os.stat_result]]:
        files = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(PARTIAL):
                    with contextlib.suppress(FileNotFoundError):
                        files.append((Path(entry.path), entry.stat()))
        return files


def lock_partial(path: Path) -> int:
    """Open and lock a partial, making it when absent. Blocks on the disk, never on the lock.

    Raises Busy when another holds it, Unavailable when the disk refuses.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unavailable(error) from error
        try:
            if not try_lock(fd, fcntl.LOCK_EX):
                os.close(fd)
                raise Busy("Another process fetches it just now.", reason=Reason.INTERNAL)
            if is_named(fd, path):
                return fd
        except OSError as error:
            os.close(fd)
            raise unavailable(error) from error
        os.close(fd)  # published or removed between open and lock: its name is another file's now


def replace_partial(path: Path, former: int) -> int:
    """Put an empty, locked file where `path`, open and locked by the caller as `former`, is; nobody
    finds the name free meanwhile. Returns its descriptor. Blocks. Raises OSError.
    """
    # First of all: whenever this process dies from here on, who has it open is told the right thing.
    os.fchmod(former, REPLACED_MODE)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        draft.rename(path)
    except OSError:
        os.close(fd)
        raise
    return fd


def is_replaced(status: os.stat_result) -> bool:
    """Whether `replace_partial` put another in the place of the file with that status, or was about to."""
    return bool(status.st_mode & stat.S_IXUSR)


def try_lock(fd: int, kind: int) -> bool:
    """Take `flock` LOCK_SH or LOCK_EX unless another's is in the way. Raises OSError."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_named(fd: int, path: Path) -> bool:
    """Whether `path` names that very file. Raises OSError."""
    try:
        named = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(os.fstat(fd), named)


def unavailable(error: OSError) -> Unavailable:
    """What the disk refused, in words."""
    return Unavailable(f"The store cannot take it: {error.strerror}.", reason=Reason.INTERNAL)


def _is_left(path: Path) -> bool:
    """Whether nobody writes it. Whoever wants it in this very moment finds it busy, and follows."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def _drop(path: Path) -> bool:
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
    return True
