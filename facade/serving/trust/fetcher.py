"""Where metadata comes from: a local folder or an https URL, behind tuf's fetcher seam.

Guarantees: no file is larger than `MAX_FILE_BYTES`, no read waits longer than `READ_SECONDS`,
and all reads of one fetcher together end within `REFRESH_SECONDS`; a file that is not there is
`DownloadHTTPError(404)`, which tuf's root loop needs; no redirect is followed. Does not verify
anything. One fetcher serves one refresh, in one thread.
"""

import http
import http.client
import os
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    SlowRetrievalError,
)
from tuf.ngclient.fetcher import FetcherInterface

from facade.clock import Clock
from facade.errors import Invalid

MAX_FILE_BYTES = 5_000_000
"""Largest metadata file read, whatever length the metadata itself promises for it."""
READ_SECONDS = 10.0
REFRESH_SECONDS = 60.0
BASE_URL = "metadata:///"
"""What the updater is told; the fetcher replaces it by its source."""
_CHUNK_BYTES = 64 * 1024

Connect = Callable[[str, int], http.client.HTTPConnection]
"""Makes an unconnected connection to (host, port), with its time limit set."""


class Source(Protocol):
    """A place with metadata files."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """The file's bytes. Raises DownloadError, DownloadHTTPError or OSError."""
        ...


class FolderSource:
    """A folder on this machine that holds `timestamp.json` and the other files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def chunks(self, name: str) -> Iterator[bytes]:
        try:
            # A FIFO would block the thread for ever; O_NONBLOCK opens it at once.
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DownloadHTTPError(f"{name} is not in the folder", 404) from error
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DownloadError(f"{name} is not a regular file")
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


class HttpsSource:
    """Files below an https URL; one connection per file.

    Arguments:
        url: like https://updates.example/tuf; the system's certificate authorities are trusted.
        connect: makes the connections; the default speaks TLS.

    Raises Invalid for a URL that is not https or holds credentials.
    """

    def __init__(self, url: str, connect: Connect | None = None) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 443
        except ValueError:
            host, port = None, 443
        if not host or parts.scheme != "https" or "@" in parts.netloc or parts.query:
            raise Invalid("The metadata source is a folder or an https:// URL without password.")
        self._host, self._port = host, port
        self._path = parts.path.rstrip("/")
        self._connect = connect or _https

    def chunks(self, name: str) -> Iterator[bytes]:
        connection = self._connect(self._host, self._port)
        try:
            connection.request("GET", f"{self._path}/{name}", headers={"Connection": "close"})
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise DownloadHTTPError(f"{name}: HTTP {response.status}", response.status)
            left = response.length  # None: until the end of the body
            while left is None or left > 0:
                # read1 returns after one receive, so a slow drip cannot hide from the deadline.
                chunk = response.read1(_CHUNK_BYTES)
                if not chunk:
                    break
                left = None if left is None else left - len(chunk)
                yield chunk
            if left:
                raise DownloadError(f"{name}: the answer ended {left} bytes early")
        except TimeoutError as error:
            raise SlowRetrievalError(f"{name}: no answer within {READ_SECONDS:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{name}: {type(error).__name__}") from error
        finally:
            connection.close()


def source_for(text: str) -> Source:
    """The source that a setting names: an https URL or a folder. Raises Invalid."""
    if "://" in text:
        return HttpsSource(text)
    return FolderSource(Path(text))


class MetadataFetcher(FetcherInterface):
    """Gives tuf's updater a source's files, within the limits above.

    Arguments:
        clock: its monotonic time bounds the whole refresh.
    """

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._deadline = clock.monotonic() + REFRESH_SECONDS

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.removeprefix(BASE_URL)
        if "/" in name or not name.endswith(".json"):  # the updater has quoted role names
            raise DownloadError(f"{name!r} is no metadata file's name")
        received = 0
        for chunk in self._source.chunks(name):
            received += len(chunk)
            if received > MAX_FILE_BYTES:
                raise DownloadLengthMismatchError(f"{name} is larger than {MAX_FILE_BYTES} bytes")
            if self._clock.monotonic() > self._deadline:
                raise SlowRetrievalError(f"{name}: the refresh took over {REFRESH_SECONDS:.0f} s")
            yield chunk


def _https(host: str, port: int) -> http.client.HTTPConnection:
    return http.client.HTTPSConnection(
        host, port, timeout=READ_SECONDS, context=ssl.create_default_context()
    )
