"""Where the local store keeps what, and the file operations that make it durable.

    blobs/<algorithm>/<2 hex>/<hex>         verified content, with its block tags on it or in <hex>.tags beside it
    ingest/<digest>.<owner>.<size>.partial  bytes on their way in, locked by who writes them
    quarantine/<algorithm>-<hex>[.tags]     what failed a check, for a person to look at

Guarantees: only a whole file gets a name under `blobs/`, which survives a power loss once
`sync_folder` returned. Everything here blocks.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.serving.blobs.port import BlobKey

PARTIAL = ".partial"
_TAGS = ".tags"
_OWNER_HEX = 16
_MAX_SIZE_DIGITS = 20
_TRIED_BYTES = 4096
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR)


_SPACE_RESV = struct.Struct("@hhqqiI16x")
_FS_IOC_RESVSP64 = 1 << 30 | _SPACE_RESV.size << 16 | ord("X") << 8 | 42
"""_IOW('X', 42, struct space_resv)"""
_FREE_PART = 10
_BLOCK_BYTES = 512
"""What `st_blocks` counts in (inode(7))."""


class Layout:
    """Paths under one root.

    Arguments:
        root: the store's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "blobs"
        self.ingest = root / "ingest"
        self.quarantine = root / "quarantine"

    def make(self) -> None:
        """Make the folders, for nobody else to look into. Raises OSError."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._blobs, self.ingest, self.quarantine):
            folder.mkdir(mode=0o700, exist_ok=True)

    def refuses(self) -> str | None:
        """Why nothing new can be written here, in the system's words; None when it can."""
        try:
            # It never has a name, so nothing is left of it.
            fd = os.open(self.ingest, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, bytes(_TRIED_BYTES), 0)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                return os.strerror(error.errno or errno.EIO)
            return None if os.access(self.ingest, os.W_OK) else os.strerror(errno.EACCES)
        return None

    def blob(self, digest: Digest) -> Path:
        """Where the content lies."""
        return self._blobs / digest.algorithm / digest.hex[:2] / digest.hex

    def tags(self, digest: Digest) -> Path:
        """Where its block tags lie."""
        return self.blob(digest).with_name(digest.hex + _TAGS)

    def partial(self, key: BlobKey, size: int) -> Path:
        """Where its bytes are gathered: one file per key, for they are that key's alone.

        The expected size is in the name: other processes count it (`declared_size`), and a
        descriptor with a wrong size does not meet those with the right one.
        """
        owner = hashlib.sha256(f"{key.connection_id}\0{key.repository}".encode()).hexdigest()
        digest = f"{key.digest.algorithm}-{key.digest.hex}"
        return self.ingest / f"{digest}.{owner[:_OWNER_HEX]}.{size}{PARTIAL}"

    def quarantined(self, digest: Digest) -> Path:
        """Where it goes when it failed a check."""
        return self.quarantine / f"{digest.algorithm}-{digest.hex}"

    def objects(self) -> Iterator[tuple[Digest, int]]:
        """All objects with their sizes, in no order; those that vanish meanwhile are skipped."""
        for path in self._blobs.glob("*/??/*"):
            if path.suffix == _TAGS:
                continue
            with contextlib.suppress(Invalid, FileNotFoundError):
                digest = Digest.parse(f"{path.parent.parent.name}:{path.name}")
                yield digest, path.stat().st_size


def declared_size(partial: Path) -> int:
    """How many bytes it will have, as its name says; 0 when that tells nothing."""
    text = partial.name.removesuffix(PARTIAL).rpartition(".")[2]
    return int(text) if text.isdecimal() and len(text) < _MAX_SIZE_DIGITS else 0


def reserve(fd: int, size: int) -> None:
    """Have the file system set room for `size` bytes aside, in one piece if it can, and leave the file's length alone.

    A hint: one that cannot is none the worse for it, and a tenth of the disk stays free for whoever writes
    meanwhile. As fallocate(2) with FALLOC_FL_KEEP_SIZE, which Python does not have (linux/falloc.h;
    ioctl_preallocate in the kernel's fs/ioctl.c).
    """
    with contextlib.suppress(OSError):
        disk = os.fstatvfs(fd)
        if size <= (disk.f_bavail - disk.f_blocks // _FREE_PART) * disk.f_frsize:
            fcntl.ioctl(fd, _FS_IOC_RESVSP64, _SPACE_RESV.pack(0, os.SEEK_SET, 0, size, 0, 0))


def taken(status: os.stat_result) -> int:
    """Bytes of a file's length, and what was set aside behind it."""
    behind = status.st_blocks * _BLOCK_BYTES - status.st_size
    return status.st_size + (behind if behind >= status.st_blksize else 0)


def give_back(fd: int) -> None:
    """Nothing more is written behind the file's end: what was set aside there, by whomever, is free again.

    Raises OSError.
    """
    status = os.fstat(fd)
    if taken(status) > status.st_size:
        os.ftruncate(fd, status.st_size)


def write_all(fd: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`. Raises OSError."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def write_durably(path: Path, data: bytes, draft: Path) -> None:
    """Put `data` at `path`, whole or not at all, by way of `draft`. Raises OSError."""
    try:
        write_new(draft, data, synced=True)
        move((draft, path))
        sync_folder(path.parent)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def move(*moves: tuple[Path, Path]) -> None:
    """Rename each (source, target), in order, into one folder, made if absent. Until `sync_folder`
    a power loss may take the new names. Raises OSError.
    """
    folder = moves[0][1].parent
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)
        sync_folder(folder.parent.parent)
    for source, target in moves:
        source.rename(target)


def write_new(path: Path, data: bytes, *, synced: bool) -> None:
    """Write a file; when `synced` it is on the disk when this returns, though its name may not be.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data, 0)
        if synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power loss. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
