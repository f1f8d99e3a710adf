"""The signed metadata, verified on the device from its own pinned root.

Guarantees: a `SignedTarget` comes only from metadata that tuf's client workflow accepted (TUF
specification, 5): signatures up to the pinned root, not expired, not older than what this
device saw before. That memory is the metadata folder: keep it, one per facade. Everything else
is an error that says which of these failed. tuf asks the machine's clock.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from facade.errors import FacadeError, Integrity, Invalid, NotFound, Unavailable
from facade.reasons import Reason
from facade.target import SignedTarget, parse_artifact_path

MAX_FILE_BYTES = 5_000_000
"""Largest metadata file (tuf's own limit for targets)."""
FILE_SECONDS = 60.0
_BASE_URL = "https://facade/tuf/"  # only its last segment is used: the session knows the host

Fetch = Callable[[str, int], Coroutine[Any, Any, bytes]]
"""(path, at most so many bytes) → body; runs on the event loop."""


class SignedMetadata:
    """Finds signed targets.

    Arguments:
        root: the pinned root.json.
        folder: where verified metadata is remembered; made when missing.
        fetch: gets `/tuf/…` paths.
    """

    def __init__(self, root: bytes, folder: Path, fetch: Fetch) -> None:
        self._root = root
        self._folder = folder
        self._fetch = fetch

    async def target(self, path: str) -> SignedTarget:
        """The signed target `FLEET/NAME/VERSION`, from fresh metadata.

        Raises Invalid for a malformed path or root, NotFound when it is not signed, Integrity
        for metadata that does not verify, Unavailable when it expired or cannot be had.
        """
        fleet, _, _ = parse_artifact_path(path)
        fetcher = _LoopFetcher(self._fetch, asyncio.get_running_loop())
        thread = asyncio.to_thread(self._find, path, fetcher)
        try:
            found = await thread
        except DownloadError as error:
            raise fetcher.explain(error, fleet) from error
        except (RepositoryError, OSError, ValueError) as error:
            raise _explain(error) from error
        finally:
            fetcher.cancel()
        if found is None:
            raise NotFound(
                f"{path} is not signed: the facade's metadata knows no such artifact.",
                reason=Reason.NOT_SIGNED,
            )
        return found

    def _find(self, path: str, fetcher: FetcherInterface) -> SignedTarget | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        updater = Updater(str(self._folder), _BASE_URL, fetcher=fetcher, bootstrap=self._root)
        target = updater.get_targetinfo(path)
        if target is None:
            return None
        custom = target.unrecognized_fields.get("custom")
        return SignedTarget.parse(
            target.path, length=target.length, hashes=target.hashes, custom=custom
        )


class _LoopFetcher(FetcherInterface):
    """tuf's synchronous fetcher, in its thread, over the event loop's session."""

    def __init__(self, fetch: Fetch, loop: asyncio.AbstractEventLoop) -> None:
        self._get = fetch
        self._loop = loop
        self._failure: FacadeError | None = None
        self._name = ""
        self._running: Future[bytes] | None = None
        self._cancelled = False

    def _fetch(self, url: str) -> Iterator[bytes]:
        if self._cancelled:
            raise DownloadError("cancelled")
        self._name = urlsplit(url).path.rpartition("/")[2]
        self._running = asyncio.run_coroutine_threadsafe(
            self._get(f"/tuf/{self._name}", MAX_FILE_BYTES), self._loop
        )
        try:
            yield self._running.result(FILE_SECONDS)
        except NotFound as error:
            self._failure = error
            raise DownloadHTTPError(error.message, 404) from error
        except FacadeError as error:
            self._failure = error
            raise DownloadError(error.message) from error
        except TimeoutError as error:
            self._running.cancel()
            raise DownloadError(f"{self._name} did not come within {FILE_SECONDS:.0f} s") from error

    def cancel(self) -> None:
        """The caller is gone: let the thread end at its next step."""
        self._cancelled = True
        if self._running is not None:
            self._running.cancel()

    def explain(self, error: DownloadError, fleet: str) -> FacadeError:
        """A failed download in our terms."""
        if isinstance(error, DownloadLengthMismatchError):
            return Integrity(f"The facade's metadata file {self._name} is too long: {error}")
        if isinstance(self._failure, NotFound):
            if self._name.endswith(f".{fleet}.json"):
                return NotFound(
                    f"The facade has no metadata of fleet {fleet} for this device.",
                    reason=Reason.NOT_SIGNED,
                )
            return Unavailable(
                f"The facade has no metadata file {self._name}.",
                reason=Reason.METADATA_UNAVAILABLE,
            )
        return self._failure or Unavailable(
            f"The facade's metadata cannot be had: {error}", reason=Reason.METADATA_UNAVAILABLE
        )


def _explain(error: Exception) -> FacadeError:
    """A failed verification in our terms."""
    if isinstance(error, FacadeError):
        return error
    if isinstance(error, ExpiredMetadataError):
        return Unavailable(
            f"The facade's metadata has expired ({error}). Nothing newer is offered: either it "
            "was not renewed, or somebody holds the newer back.",
            reason=Reason.METADATA_EXPIRED,
        )
    if isinstance(error, BadVersionNumberError):
        return Integrity(f"The facade's metadata is older than what this device knows: {error}")
    if isinstance(error, UnsignedMetadataError):
        return Integrity(f"The facade's metadata is not signed by the keys it must be: {error}")
    if isinstance(error, LengthOrHashMismatchError):
        return Integrity(f"The facade's metadata does not fit together: {error}")
    if isinstance(error, OSError):
        return Unavailable(f"The metadata folder cannot be used: {error}")
    if isinstance(error, RepositoryError):
        return Integrity(f"The facade's metadata does not verify: {error}")
    return Invalid(f"The pinned root cannot be used: {error}")
