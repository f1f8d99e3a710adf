"""The metadata files that devices fetch, so that they verify with their own pinned root.

Guarantees: a file is here only after the whole chain it belongs to was verified; the timestamp
here never names a snapshot that is not here; what a newer version replaced stays 24 h for clients
in the middle of a refresh; a device gets its own fleet's role and no other, and every other name
gets one and the same answer. Does not judge expiry: the device does.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from facade.errors import NotFound, Unavailable
from facade.reasons import Reason

KEEP_SECONDS = 24 * 3600.0
_FOLDER = "served"
_NAME = re.compile(r"timestamp\.json|[1-9][0-9]{0,9}\.(?P<role>[a-z0-9][a-z0-9._-]{0,62})\.json")
_EVERYBODYS = frozenset({"root", "snapshot", "targets"})


class ServedFiles:
    """The folder of them, as links to what the updater persisted. Blocking; one writer.

    Arguments:
        metadata_dir: the updater's folder; the files are in a folder inside it.
    """

    def __init__(self, metadata_dir: Path) -> None:
        self._persisted = metadata_dir
        self._folder = metadata_dir / _FOLDER

    def publish(self, versions: Mapping[str, int], verified: Collection[str], now: float) -> None:
        """Offer what the updater persisted. Raises OSError.

        Arguments:
            versions: by role, those in use.
            verified: the fleets whose persisted file was verified just now. The others' were
                offered before, and what lies in the updater's folder today was not looked at.
            now: Unix seconds; a file's modification time says when it was last current.
        """
        self._folder.mkdir(exist_ok=True)
        current = {
            f"{version}.{role}.json": f"{role}.json"
            for role, version in versions.items()
            if role in {"snapshot", "targets"} or role in verified
        }
        for version in range(1, versions["root"] + 1):
            name = f"{version}.root.json"
            if (self._persisted / "root_history" / name).exists():
                current[name] = f"root_history/{name}"
        current["timestamp.json"] = "timestamp.json"  # last: it names the others
        for name, persisted in current.items():
            self._link(self._persisted / persisted, self._folder / name)
        in_use = {f"{version}.{role}.json" for role, version in versions.items()} | current.keys()
        for path in self._folder.iterdir():
            if path.name in in_use:
                os.utime(path, (now, now))
            elif path.stat().st_mtime < now - KEEP_SECONDS:
                path.unlink()

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError; `name` has been checked by the caller."""
        return (self._folder / name).read_bytes()

    def behind(self) -> bool:
        """Alone it is never behind (`shared.NodeFiles`)."""
        return False

    def _link(self, persisted: Path, served: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            if served.samefile(persisted):
                return
        temporary = self._folder / f".{served.name}.new"
        temporary.unlink(missing_ok=True)
        # A link, not a copy: the updater replaces files and never writes into one.
        os.link(persisted, temporary)
        temporary.replace(served)


class Offered(Protocol):
    """Where the files are: `ServedFiles`, or those of all processes of the node."""

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises FileNotFoundError."""
        ...

    def behind(self) -> bool:
        """Whether another process offers newer ones."""
        ...


class Fleets(Protocol):
    """Who loads a fleet's role on demand, and refreshes: `refresher.Refresher`."""

    async def refresh(self) -> None:
        """Take up what is current. Raises Unavailable."""
        ...

    async def fleet(self, fleet: str) -> None:
        """Return when the fleet's role was loaded, or could not be."""
        ...


class MetadataFiles:
    """What `GET /tuf/<name>` answers (interface.md, "Device port")."""

    def __init__(self, served: Offered, fleets: Fleets) -> None:
        self._served = served
        self._fleets = fleets

    async def read(self, name: str, fleet: str) -> bytes:
        """The file's bytes, for a device of `fleet`.

        Raises NotFound (NOT_FOUND), the same for another fleet's role, a version that is not
        here, and a name that is none.
        """
        match = _NAME.fullmatch(name)
        role = match["role"] if match else None
        if match is None or (role is not None and role not in {*_EVERYBODYS, fleet}):
            raise _not_found()
        if role is None and await asyncio.to_thread(self._served.behind):
            # What that timestamp leads to is asked for next, perhaps here.
            with contextlib.suppress(Unavailable):
                await self._fleets.refresh()
        if role == fleet:
            await self._fleets.fleet(fleet)
        try:
            return await asyncio.to_thread(self._served.read, name)
        except FileNotFoundError as error:
            raise _not_found() from error


def _not_found() -> NotFound:
    return NotFound("There is no such metadata file.", reason=Reason.NOT_FOUND)
