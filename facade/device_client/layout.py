"""An OCI image layout on disk (OCI image-spec, image-layout.md), built so that it is never half there.

Guarantees: a file under `blobs/` is complete and hashed to its name before it got there;
`index.json` is written last and whole, so a reader sees the old image or the new one. What broke
off stays in `.partial/` and is taken up again, hashed anew from its first byte. Does not lock:
one writer per folder.
"""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import aiofiles
import aiofiles.os

from facade.errors import Integrity, Invalid, Unavailable
from facade.oci.digest import Digest

_LAYOUT = {"imageLayoutVersion": "1.0.0"}
_READ_BYTES = 1024 * 1024
_PARTIAL = ".partial"


class Layout:
    """An image layout in `folder`. Every method raises Unavailable when the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def prepare(self) -> None:
        """Make the folder. Raises Invalid when it holds something else."""
        with _disk(self.folder):
            await asyncio.to_thread(self._prepare)

    async def has(self, digest: Digest, size: int) -> bool:
        """Whether the blob is there already; one whose bytes have gone bad is removed."""
        with _disk(self.folder):
            return await asyncio.to_thread(self._check, self.blob(digest), digest, size)

    def blob(self, digest: Digest) -> Path:
        """Where the blob belongs."""
        return self.folder / "blobs" / digest.algorithm / digest.hex

    async def put(self, digest: Digest, data: bytes) -> None:
        """Store bytes that were checked already."""
        async with await self.partial(digest, fresh=True) as partial:
            await partial.write(data)
            await partial.publish(len(data))

    async def partial(self, digest: Digest, *, fresh: bool = False) -> "Partial":
        """What there is of the blob, open for more; with `fresh`, nothing."""
        path = self.folder / _PARTIAL / f"{digest.algorithm}-{digest.hex}"
        with _disk(path):
            await aiofiles.os.makedirs(path.parent, exist_ok=True)
            if fresh:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            partial = Partial(path, self.blob(digest), digest)
            await partial.open()
        return partial

    async def finish(self, descriptor: Mapping[str, Any]) -> None:
        """Make `descriptor` the layout's one image, and clear what is left of downloads."""
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [dict(descriptor)],
        }
        with _disk(self.folder):
            await asyncio.to_thread(_write_whole, self.folder / "oci-layout", _LAYOUT)
            await asyncio.to_thread(_write_whole, self.folder / "index.json", index)
            await asyncio.to_thread(shutil.rmtree, self.folder / _PARTIAL, ignore_errors=True)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in self.folder.iterdir()}
        if "oci-layout" not in names and not names <= {"blobs", _PARTIAL}:
            raise Invalid(f"{self.folder} is not empty and no OCI layout: choose another folder.")
        for algorithm in ("sha256", "sha512"):
            (self.folder / "blobs" / algorithm).mkdir(parents=True, exist_ok=True)

    @staticmethod
    def _check(path: Path, digest: Digest, size: int) -> bool:
        try:
            with path.open("rb") as file:
                good = os.fstat(file.fileno()).st_size == size
                good = good and hashlib.file_digest(file, digest.hasher).hexdigest() == digest.hex
        except FileNotFoundError:
            return False
        if not good:
            path.unlink()
        return good


async def _open(path: Path) -> Any:
    return await aiofiles.open(path, "a+b")


async def _close(file: Any) -> None:
    """Close `file`, also when cancelled meanwhile: a thread that has not begun would never do it."""
    closing = asyncio.ensure_future(file.close())
    try:
        await asyncio.shield(closing)
    finally:
        await asyncio.wait([closing])


class Partial:
    """A blob on its way; an async context manager. Its hash covers all that is in the file."""

    def __init__(self, path: Path, target: Path, digest: Digest) -> None:
        self._path = path
        self._target = target
        self._digest = digest
        self._hash = digest.hasher()
        self._file: Any = None
        self.size = 0
        """Bytes that are there."""

    async def open(self) -> None:
        """Open the file and hash what it holds; closed again when that is cancelled."""
        opening = asyncio.ensure_future(_open(self._path))
        try:
            self._file = await asyncio.shield(opening)
            await self._file.seek(0)
            while chunk := await self._file.read(_READ_BYTES):
                self._hash.update(chunk)
                self.size += len(chunk)
        except BaseException:
            # The thread that opens it does not stop with us: wait for what it brings.
            await asyncio.wait([opening])
            if opening.exception() is None:
                await _close(opening.result())
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await _close(self._file)

    async def write(self, data: bytes) -> None:
        """Append."""
        with _disk(self._path):
            await self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    async def restart(self) -> None:
        """Forget what is there."""
        with _disk(self._path):
            await self._file.truncate(0)
        self._hash = self._digest.hasher()
        self.size = 0

    async def publish(self, size: int) -> None:
        """Put the blob in its place. Raises Integrity (and forgets it) when it is not the one."""
        if self.size != size or self._hash.hexdigest() != self._digest.hex:
            got = self.size
            await self.restart()
            raise Integrity(
                f"What came for {self._digest} is not it: {got} bytes of {size}, and another hash."
                if got != size
                else f"What came for {self._digest} has another hash."
            )
        with _disk(self._path):
            await self._file.flush()
            await asyncio.to_thread(os.fsync, self._file.fileno())
            await aiofiles.os.replace(self._path, self._target)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror or error}.") from error


def _write_whole(path: Path, document: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("w") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
