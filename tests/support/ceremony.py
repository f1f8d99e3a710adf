"""Holders on machines of their own, a control machine, and a medium between them.

Guarantees: everything goes through the command line, as in a real ceremony; a holder's machine has its
own folder and nothing of the repository; the medium is the only thing that both sides see.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facade.clock import SystemClock
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.publisher import Publisher
from facade.control.signing.repository import Current, MetadataRepository
from tests.support.operator_server import CommandLine, Ran
from tests.support.signing import StockClient


class Machine:
    """A machine with the `facade` command and a folder.

    Arguments:
        passphrase: of the offline keys on it.
    """

    def __init__(self, folder: Path, passphrase: str = "") -> None:
        self.folder = folder
        folder.mkdir()
        self._run = CommandLine({"FACADE_STATE": str(folder)})
        self._options: tuple[str, ...] = ()
        if passphrase:
            (folder / "passphrase").write_text(passphrase)
            self._options = ("--passphrase-file", str(folder / "passphrase"))

    def trust(self, command: str, *arguments: str | Path) -> Ran:
        """Run `facade trust COMMAND`."""
        secret = self._options if command not in {"export", "import", "discard", "status"} else ()
        return self._run("trust", command, *map(str, arguments), *secret)

    def must(self, command: str, *arguments: str | Path) -> Any:
        """Run it with --json; it must succeed."""
        ran = self.trust(command, *arguments, "--json")
        assert ran.code == 0, ran
        return json.loads(ran.stdout)


class Holder(Machine):
    """Somebody with an offline key for a role, in a folder of their own."""

    def __init__(self, folder: Path, role: str) -> None:
        super().__init__(folder, f"passphrase of {folder.name}")
        made = self.must("key", role)
        self.key_id: str = made["keyid"]
        self.public = Path(made["public_key"])

    def sign(self, file: Path, *options: str | Path) -> Any:
        """Sign a carried file."""
        return self.must("sign", file, *options)


@dataclass(frozen=True)
class Control:
    """The control machine: repository and online keys, no offline ones."""

    machine: Machine
    medium: Path

    @property
    def repository(self) -> Path:
        return self.machine.folder / "trust" / "repository"

    @property
    def metadata(self) -> Path:
        return self.repository / "metadata"

    @property
    def online(self) -> Path:
        return self.machine.folder / "trust" / "online"

    @property
    def current(self) -> Current:
        """What is published, verified."""
        return MetadataRepository(self.repository, SystemClock()).current()

    def root(self, version: int) -> Path:
        return self.metadata / f"{version}.root.json"

    def publisher(self) -> Publisher:
        return Publisher(self.repository, OnlineKeys(self.online), SystemClock())

    def client(self, state: Path | None = None) -> StockClient:
        """A device that pinned the first root."""
        return StockClient(self.metadata, self.root(1).read_bytes(), state)

    def carry(self, *holders: Holder) -> Any:
        """Export, let these holders sign one after another, import."""
        self.machine.must("export", self.medium)
        for holder in holders:
            holder.sign(self.medium)
        return self.machine.must("import", self.medium)
