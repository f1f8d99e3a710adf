"""Where an object's sidecar of block tags lies: on its own file, as an extended attribute, where it is
small and the file system has such; else in a file beside it.

Guarantees: nothing about what is found: `tags` tells what is this object's, whole and unchanged. A file
costs a fifth of what keeping a small blob costs; an attribute goes with its file wherever that is moved
to, and is on the disk when that is. Everything here blocks.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from facade.serving.blobs.tags import read_sidecar

ATTRIBUTE = "user.facade.tags"
MAX_ATTRIBUTE_BYTES = 512
"""That is 6 MiB of content. ext4 has a block of 4 KiB for all attributes of a file."""


class Sidecars:
    """Those of one store.

    Arguments:
        attributes: False = all lie in files.
    """

    def __init__(self, *, attributes: bool = True) -> None:
        self._attributes = attributes

    def attach(self, fd: int, sidecar: bytes) -> bool:
        """Put it on the open file `fd`, in the place of another; False where it must go into a file."""
        if not self._attributes or len(sidecar) > MAX_ATTRIBUTE_BYTES:
            return False
        try:
            os.setxattr(fd, ATTRIBUTE, sidecar)
        except OSError:
            # No such thing here, or no room: what is wrong with the disk the file will tell.
            return False
        return True

    def found(self, fd: int, beside: Path, size: int) -> Iterator[bytes]:
        """What there is for the open file `fd` of `size` bytes, or lies `beside` it. Raises OSError."""
        with contextlib.suppress(OSError):
            yield os.getxattr(fd, ATTRIBUTE)
        with contextlib.suppress(FileNotFoundError):
            yield read_sidecar(beside, size)
