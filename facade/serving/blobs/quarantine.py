"""Where the local store puts what failed a check, for a person to look at.

Guarantees: what lies there no `open` finds; at most `MAX_QUARANTINED` objects are kept, the latest, each with its
tags. Everything here blocks.
"""

import contextlib
import os

import structlog

from facade.oci.digest import Digest
from facade.serving.blobs.layout import Layout

log = structlog.get_logger(__name__)

MAX_QUARANTINED = 8
"""How many failed objects are kept to look at; older ones are deleted."""
_SET_ASIDE_MODE = 0o400


class Quarantine:
    """That of one store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def count(self) -> int:
        """How many failed objects are there. Raises OSError."""
        return sum(1 for path in self._layout.quarantine.iterdir() if path.suffix != ".tags")

    def holds(self, digest: Digest) -> bool:
        """Whether that object is there. Raises OSError."""
        return self._layout.quarantined(digest).exists()

    def take(self, digest: Digest, spoiled: os.stat_result | None) -> None:
        """Set it aside, unless what is `spoiled` was replaced: by another process, perhaps."""
        try:
            if spoiled is None or self._is_there(digest, spoiled):
                self._set_aside(digest)
        except OSError as error:
            log.error("quarantine_failed", digest=str(digest), error=error.strerror)

    def _is_there(self, digest: Digest, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(self._layout.blob(digest).stat(), status)
        except FileNotFoundError:
            return False

    def _set_aside(self, digest: Digest) -> None:
        place = self._layout.quarantined(digest)
        for source, target in (
            (self._layout.blob(digest), place),
            (self._layout.tags(digest), place.with_name(f"{place.name}.tags")),
        ):
            with contextlib.suppress(FileNotFoundError):
                source.rename(target)
                target.chmod(_SET_ASIDE_MODE)  # so that processes that have it open notice
        kept = [path for path in self._layout.quarantine.iterdir() if path.suffix != ".tags"]
        for path in sorted(kept, key=lambda path: path.stat().st_ctime)[:-MAX_QUARANTINED]:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.tags").unlink(missing_ok=True)
