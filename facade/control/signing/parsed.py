"""Fleet roles already read: a role of thousands of targets takes a quarter of a second to verify and parse.

Guarantees: what is given back was read from a file with exactly the version, length and hashes that the
verified snapshot lists, under the keys that the verified targets role names; anything else is read
anew. Bounded by targets over all fleets. Used from several threads.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType

from facade.control.signing import layout
from facade.control.signing.repository import Current
from facade.target import SignedTarget

MAX_TARGETS = 50_000
"""Targets that are kept in memory: about 1 KiB each. One role alone may hold 10,000."""

Targets = Mapping[str, SignedTarget]


class ParsedRoles:
    """What fleets' roles say, by fleet.

    Arguments:
        max_targets: of all that is kept, the longest unused given up first.
    """

    def __init__(self, max_targets: int = MAX_TARGETS) -> None:
        self._max_targets = max_targets
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[object, Targets]] = OrderedDict()

    def get(self, current: Current, fleet: str, read: Callable[[], Targets]) -> Targets:
        """The fleet's targets by path.

        Arguments:
            current: the verified top of the tree.
            read: verifies and parses the role that `current` lists; its errors are passed on.
        """
        entry = current.snapshot.signed.meta.get(f"{fleet}.json")
        keys = layout.delegated_keys(current.targets.signed, fleet)
        anchor = (None if entry is None else str(entry.to_dict()), keys)
        with self._lock:
            known = self._known.get(fleet)
            if known is not None and known[0] == anchor:
                self._known.move_to_end(fleet)
                return known[1]
        found = MappingProxyType(dict(read()))
        with self._lock:
            self._known.pop(fleet, None)
            self._known[fleet] = (anchor, found)
            while sum(len(each) for _, each in self._known.values()) > self._max_targets:
                self._known.popitem(last=False)
        return found
