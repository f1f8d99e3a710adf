"""The node's own key for block tags: a file beside the store that never leaves the node.

Guarantees: made once, mode 0600, also when several processes start at the same time; a file
that others may read, or of a wrong length, is refused with words. Losing it costs re-hashing
what is cached, never trust.
"""

import os
import stat
from pathlib import Path

from facade.errors import Invalid, Unavailable
from facade.serving.blobs.tags import NODE_KEY_BYTES


def load_node_key(path: Path) -> bytes:
    """Read the key, making it first when absent. Blocks.

    Raises Invalid when the file may be read by others or is damaged, Unavailable when it cannot
    be read or made.
    """
    try:
        if not path.exists():
            _make(path)
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            key = file.read(NODE_KEY_BYTES + 1)
    except OSError as error:
        raise Unavailable(f"The node key {path} cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise Invalid(f"The node key {path} may be read by others (mode {mode:04o}): chmod 600 it.")
    if len(key) != NODE_KEY_BYTES:
        raise Invalid(f"The node key {path} is damaged. Delete it: cached content is re-hashed.")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.urandom(8).hex()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(os.urandom(NODE_KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(draft, path)  # unlike rename, never replaces another process's key
        except FileExistsError:
            return
    finally:
        draft.unlink()
