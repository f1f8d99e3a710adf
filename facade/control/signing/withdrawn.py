"""Which image a withdrawn path stood for, so that it never stands for another.

Guarantees: a path noted here is remembered although databases are lost or an import died before it was
recorded; a note is on disk before the withdrawal is published. One line per path, only ever appended;
a line torn by a crash was never relied on. Grants nothing, and clients never see it: a note forged or
removed by whoever may write to the repository folder makes nothing servable.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from facade.control.signing.files import sync_folder
from facade.errors import Unavailable

FILE_NAME = "withdrawn.jsonl"


class WithdrawnPaths:
    """In a repository folder. Used under the repository's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME

    def load(self) -> Mapping[str, str]:
        """The SHA-256 in hex that each path stood for. Raises Unavailable."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error.strerror}.") from error
        found: dict[str, str] = {}
        for line in lines:
            try:
                path, digest = json.loads(line)
            except (ValueError, TypeError):
                continue  # torn by a crash
            found.setdefault(str(path), str(digest))
        return found

    def note(self, paths: Mapping[str, str]) -> None:
        """Remember paths with their SHA-256 in hex. Raises Unavailable."""
        known = self.load()
        lines = "".join(
            json.dumps([path, digest]) + "\n"
            for path, digest in paths.items()
            if known.get(path) != digest
        )
        if not lines:
            return
        try:
            with self._path.open("a+b") as file:
                file.seek(0, os.SEEK_END)
                end = file.tell()
                file.seek(max(0, end - 1))
                torn = file.read(1) not in {b"", b"\n"}
                file.write(b"\n" * torn + lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}.") from error
        sync_folder(self._folder)
