"""A real signed repository in a folder, made through the ceremony, and a stock TUF client of it.

Guarantees: the client is `tuf.ngclient.Updater` as it comes, reading the published files only. It
reads the machine's clock for expiry, so a repository made here starts at the machine's time.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from facade.control.signing.ceremony import Initialised, initialise
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.publisher import Publisher
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.target import SignedTarget
from tests.support.clock import FakeClock

PASSPHRASE = Secret("correct horse")
INDEX = "application/vnd.oci.image.index.v1+json"


class FolderFetcher(FetcherInterface):
    """Serves a folder to tuf; a missing file is a 404, as over HTTP."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Any:
        path = self._folder / unquote(urlsplit(url).path).lstrip("/")
        try:
            return iter([path.read_bytes()])
        except FileNotFoundError:
            raise DownloadHTTPError(f"{url} is missing", 404) from None


@dataclass(frozen=True)
class SignedRepository:
    """Folders of one installation's trust, and its publisher."""

    folder: Path
    offline: Path
    online: Path
    clock: FakeClock
    initialised: Initialised
    publisher: Publisher

    @property
    def metadata(self) -> Path:
        return self.folder / "metadata"

    def reopened(self) -> Publisher:
        """Another publisher on the same folders, as another process would have."""
        return Publisher(self.folder, OnlineKeys(self.online), self.clock)


def make_repository(base: Path, *fleets: str, clock: FakeClock | None = None) -> SignedRepository:
    """The first ceremony, in folders below `base`."""
    clock = clock or FakeClock(time.time())
    folder, offline, online = base / "trust", base / "offline", base / "online"
    initialised = initialise(folder, offline, online, PASSPHRASE, fleets or ("dev",), clock=clock)
    publisher = Publisher(folder, OnlineKeys(online), clock)
    return SignedRepository(folder, offline, online, clock, initialised, publisher)


def make_target(
    version: str = "v1", *, fleet: str = "dev", name: str = "app", content: bytes | None = None
) -> SignedTarget:
    """A target for the manifest `content` (its own version, if none is given)."""
    content = version.encode() if content is None else content
    return SignedTarget(
        fleet=fleet,
        name=name,
        version=version,
        digest=Digest.of(content),
        length=len(content),
        registry=RegistryHost("ghcr.io"),
        repository=Repository("org/app"),
        media_type=INDEX,
        reference=version,
        platforms=("linux/arm64",),
    )


class StockClient:
    """A device with a pinned root and nothing else."""

    def __init__(self, metadata: Path, root: bytes, state: Path | None = None) -> None:
        self._metadata = metadata
        self._root = root
        self._state = state or Path(tempfile.mkdtemp(prefix="tuf-client-"))

    def updater(self) -> Updater:
        """A fresh, refreshed updater; what it verified stays in its folder for the next one."""
        updater = Updater(
            metadata_dir=str(self._state),
            metadata_base_url="https://trust.example/",
            fetcher=FolderFetcher(self._metadata),
            config=UpdaterConfig(),
            bootstrap=self._root,
        )
        updater.refresh()
        return updater

    def target(self, path: str) -> SignedTarget | None:
        """The signed target at `path`, or None."""
        info = self.updater().get_targetinfo(path)
        if info is None:
            return None
        return SignedTarget.parse(path, length=info.length, hashes=info.hashes, custom=info.custom)
