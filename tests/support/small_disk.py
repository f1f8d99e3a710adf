"""A small file system of a test's own, to be filled up and made read-only while somebody uses it.

Guarantees: a tmpfs of the asked size, unmounted when the context is left; nothing else of the machine is
touched. Needs root.
"""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """The mounted file system."""

    folder: Path

    @property
    def free(self) -> int:
        """Bytes."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    @contextlib.contextmanager
    def filled(self, leave: int) -> Iterator[None]:
        """All room but `leave` bytes is taken while this lasts."""
        ballast = self.folder / "ballast"
        try:
            try:
                ballast.write_bytes(bytes(max(0, self.free - leave)))
            except OSError as error:  # somebody else wrote meanwhile: it is full all the same
                if error.errno != errno.ENOSPC:
                    raise
            yield
        finally:
            ballast.unlink(missing_ok=True)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Whoever opens, makes or renames a file below the folder is told that it is read-only."""
        assert mounted("mount", "--bind", self.folder, self.folder)
        try:
            assert mounted("mount", "-o", "remount,bind,ro", self.folder)
            yield
        finally:
            mounted("umount", "-l", self.folder)


def mounted(*command: str | Path) -> bool:
    """Run mount or umount; whether it worked."""
    program = shutil.which(str(command[0]))
    if program is None:
        return False
    done = subprocess.run([program, *map(str, command[1:])], capture_output=True, check=False)
    return done.returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A file system of `size` bytes at `folder`; the test is skipped where none can be mounted."""
    folder.mkdir()
    if os.geteuid() != 0 or not mounted("mount", "-t", "tmpfs", "-o", f"size={size}", "t", folder):
        pytest.skip("mounting a small file system needs root and a kernel that lets us")
    try:
        yield SmallDisk(folder)
    finally:
        mounted("umount", "-l", folder)
