"""The served metadata of a node with several serving processes, each of which verifies for itself.

Guarantees: what one of them offers can be had from each, and the timestamp is the newest of theirs, so a
device that meets another process sees no version go back and misses no file. What is in their folders
was verified by them, with the same pinned root. Does not wait for the others: `behind` tells when one
of them is ahead, and who asks refreshes.
"""

import json
from collections.abc import Sequence
from contextlib import suppress

from facade.serving.trust.served import ServedFiles

_TIMESTAMP = "timestamp.json"


class NodeFiles:
    """What all processes of the node offer. Blocking.

    Arguments:
        own: this process's.
        others: the other ones', which come and go.
    """

    def __init__(self, own: ServedFiles, others: Sequence[ServedFiles]) -> None:
        self._own = own
        self._all = (own, *others)

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError; `name` has been checked by the caller."""
        found = [data for data in (self._one(files, name) for files in self._all) if data]
        if not found:
            raise FileNotFoundError(name)
        return max(found, key=_version) if name == _TIMESTAMP else found[0]

    def behind(self) -> bool:
        """Whether another process has verified a newer timestamp than this one."""
        own = _version(self._one(self._own, _TIMESTAMP))
        return any(_version(self._one(files, _TIMESTAMP)) > own for files in self._all[1:])

    @staticmethod
    def _one(files: ServedFiles, name: str) -> bytes:
        with suppress(OSError):
            return files.read(name)
        return b""


def _version(timestamp: bytes) -> int:
    """0 for none."""
    try:
        return int(json.loads(timestamp)["signed"]["version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0
