"""The state folder of `facade up`: what lies where, and that only one process uses it.

Guarantees: secrets are created with mode 0600 and the folder with 0700, which only a `device.worker_user`
may pass through; a file that
is written is complete or absent (written beside, fsynced, renamed). Does not make keys or
certificates: `first_start` does.
"""

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from facade.errors import Conflict, Invalid

PRIVATE = 0o600
PUBLIC = 0o644


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths below one folder (interface.md, "`facade up`")."""

    root: Path

    @property
    def api_key(self) -> Path:
        """The operator's first API key."""
        return self.root / "api-key"

    @property
    def url(self) -> Path:
        """Where the operator API answers."""
        return self.root / "url"

    @property
    def metrics_url(self) -> Path:
        """Where the metrics port answers."""
        return self.root / "metrics-url"

    @property
    def pinned_root(self) -> Path:
        """The pinned root of trust, to give to devices."""
        return self.root / "root.json"

    @property
    def database(self) -> Path:
        """The control side's SQLite file."""
        return self.root / "facade.db"

    @property
    def private(self) -> tuple[Path, ...]:
        """What SQLite makes with the process's umask: only the folder's mode closes it to others."""
        return tuple(self.root / f"{self.database.name}{end}" for end in ("", "-wal", "-shm"))

    @property
    def cache(self) -> Path:
        """Verified content."""
        return self.root / "cache"

    @property
    def repository(self) -> Path:
        """The signed TUF repository (control side)."""
        return self.root / "trust" / "repository"

    @property
    def online_keys(self) -> Path:
        """Online signing keys (control side)."""
        return self.root / "trust" / "online"

    @property
    def verified(self) -> Path:
        """What the serving side verified last: it cannot be rolled back below that."""
        return self.root / "trust" / "verified"

    @property
    def sealing_key(self) -> Path:
        """The key ring that seals secrets in the database."""
        return self.root / "sealing.key"

    @property
    def offline(self) -> Path:
        """Root and targets keys, encrypted; meant to be carried away."""
        return self.root / "offline"

    @property
    def offline_passphrase(self) -> Path:
        """The passphrase of the offline keys; to be carried away separately."""
        return self.root / "offline-passphrase"

    def create(self) -> None:
        """Make the folder, private. Raises Invalid when that is not possible."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Invalid(
                f"The state folder {self.root} cannot be made: {error.strerror}."
            ) from error

    def lock(self) -> "StateLock":
        """Take the folder for this process. Raises Conflict that names who has it."""
        return StateLock(self.root / "lock")

    def holder(self) -> int | None:
        """The PID of who has the folder, None when nobody has. Touches nothing."""
        try:
            inode = (self.root / "lock").stat().st_ino
            locks = Path("/proc/locks").read_text(encoding="ascii")
        except OSError:
            return None
        for words in map(str.split, locks.splitlines()):
            if words[1:4:2] == ["FLOCK", "WRITE"] and words[5].endswith(f":{inode}"):
                return int(words[4])
        return None


class StateLock:
    """Held while one process uses a state folder; a kernel lock, so it dies with its process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._fd, 20).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise Conflict(
                f"{path.parent} is in use by another facade (PID {pid}). Stop that one first, "
                "or give another --state folder."
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the folder back."""
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def write(path: Path, data: bytes | str, mode: int = PUBLIC) -> None:
    """Write a file whole or not at all. Raises Invalid, naming the file, when that fails."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    content = data.encode() if isinstance(data, str) else data
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            beside.unlink()
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, mode)  # whatever the umask says
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror or error}.") from error
