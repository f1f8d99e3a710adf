"""The reference pull: signed metadata, then manifests, then blobs, then the layout.

    FLEET/NAME/VERSION → (tuf, pinned root) → digest → manifest → platform → config and layers

Guarantees: nothing is in the finished layout that does not hash, with its exact size, to what the signed
metadata leads to; a transfer that breaks is resumed where it stopped, and taken from its start
once when the whole then does not fit. Manifests come one after the other, an image's blobs a few
at a time.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facade.clock import Clock, SystemClock
from facade.device_client.choice import choose, platform_of, served
from facade.device_client.layout import Layout, Partial
from facade.device_client.metadata import SignedMetadata
from facade.device_client.session import Endpoint, FacadeSession
from facade.errors import Integrity, Invalid, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.manifest import (
    MANIFEST_MEDIA_TYPES,
    Descriptor,
    ImageManifest,
    Index,
    Manifest,
    is_manifest_type,
    parse_manifest,
)
from facade.oci.platform import Platform
from facade.target import MAX_MANIFEST_BYTES, SignedTarget

ALL_PLATFORMS = "all"
MAX_DEPTH = 4
"""Indexes within indexes, as the facade itself bounds them."""
ATTEMPTS = 5
"""Tries in a row without a new byte until a transfer is given up."""
PARALLEL = 4
"""Blobs of an image at once, within what a facade lets a device do (32 streams)."""
_LONGEST_WAIT_SECONDS = 60.0
_ANNOTATION = "org.opencontainers.image.ref.name"
_SIGNED_DIGEST = "io.facade.signed.digest"
_SIGNED_PATH = "io.facade.signed.path"


@dataclass(frozen=True, slots=True)
class Step:
    """How far a pull is: one blob or manifest, and bytes of it on disk."""

    digest: Digest
    done: int
    size: int


Progress = Callable[[Step], object]


@dataclass(frozen=True, slots=True)
class Pulled:
    """A finished pull.

    Arguments:
        manifest: what the layout's index.json names; `target.digest` is what was signed.
        fetched, reused: bytes that came over the network, and bytes that were there before.
    """

    target: SignedTarget
    manifest: Digest
    platform: str
    folder: Path
    fetched: int
    reused: int


class DeviceClient:
    """Pulls signed artifacts from one facade.

    Arguments:
        root: the pinned root.json, bytes.
        metadata_dir: remembers verified metadata between runs, so that nobody can roll it
            back; one folder per facade.
        parallel: an image's blobs that are fetched at once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        root: bytes,
        metadata_dir: Path,
        clock: Clock | None = None,
        progress: Progress | None = None,
        parallel: int = PARALLEL,
    ) -> None:
        self._endpoint = endpoint
        self._root = root
        self._metadata_dir = metadata_dir
        self._clock = clock or SystemClock()
        self._progress = progress or (lambda step: None)
        self._parallel = parallel

    async def pull(self, artifact: str, output: Path, *, platform: str | None = None) -> Pulled:
        """Pull `FLEET/NAME/VERSION` into an OCI image layout.

        Arguments:
            platform: `os/architecture[/variant]`, "all" for every one; None = this machine's.

        Raises a FacadeError: Invalid, Denied, NotFound, Integrity, Upstream, Unavailable.
        """
        wanted = None if platform == ALL_PLATFORMS else platform_of(platform)
        async with FacadeSession(self._endpoint) as session:
            metadata = SignedMetadata(self._root, self._metadata_dir, session.fetch)
            target = await metadata.target(artifact)
            pull = _Pull(
                session, target, Layout(output), self._clock, self._progress, self._parallel
            )
            return await pull.run(wanted)


class _Pull:
    def __init__(
        self,
        session: FacadeSession,
        target: SignedTarget,
        layout: Layout,
        clock: Clock,
        progress: Progress,
        parallel: int,
    ) -> None:
        self._session = session
        self._target = target
        self._layout = layout
        self._clock = clock
        self._progress = progress
        self._base = f"/v2/{target.registry}/{target.repository}"
        self._gate = asyncio.Semaphore(parallel)
        self._fetched = 0
        self._reused = 0

    async def run(self, wanted: Platform | None) -> Pulled:
        target, layout = self._target, self._layout
        await layout.prepare()
        top = Descriptor(target.media_type, target.digest, target.length)
        manifest = await self._manifest(top)
        chosen = top
        if wanted is None:
            await self._everything(manifest, 1)
        else:
            for _ in range(MAX_DEPTH):
                if isinstance(manifest, ImageManifest):
                    break
                chosen = choose(manifest, wanted)
                manifest = await self._manifest(chosen)
            await self._everything(manifest, MAX_DEPTH)
        await layout.finish(self._entry(chosen))
        return Pulled(
            target=target,
            manifest=chosen.digest,
            platform=str(chosen.platform or wanted or ALL_PLATFORMS),
            folder=layout.folder,
            fetched=self._fetched,
            reused=self._reused,
        )

    def _entry(self, chosen: Descriptor) -> dict[str, Any]:
        """What index.json says of the image."""
        entry: dict[str, Any] = {
            "mediaType": chosen.media_type,
            "digest": str(chosen.digest),
            "size": chosen.size,
            "annotations": {
                _ANNOTATION: self._target.version,
                _SIGNED_DIGEST: str(self._target.digest),
                _SIGNED_PATH: self._target.path,
            },
        }
        if chosen.platform is not None:
            entry["platform"] = {
                "os": chosen.platform.os,
                "architecture": chosen.platform.architecture,
            }
            if chosen.platform.variant:
                entry["platform"]["variant"] = chosen.platform.variant
        return entry

    async def _everything(self, manifest: Manifest, depth: int) -> None:
        if isinstance(manifest, Index):
            if depth >= MAX_DEPTH:
                raise Invalid("The image's indexes are nested too deeply.")
            for child in served(manifest, self._target):
                if is_manifest_type(child.media_type):
                    await self._everything(await self._manifest(child), depth + 1)
                else:
                    await self._blob(child)
            return
        await self._blobs({each.digest: each for each in (manifest.config, *manifest.layers)})

    async def _manifest(self, descriptor: Descriptor) -> Manifest:
        digest, size = descriptor.digest, descriptor.size
        if size > MAX_MANIFEST_BYTES:
            raise Invalid(f"{digest} is too large to be a manifest.")
        if await self._layout.has(digest, size):
            data = self._layout.blob(digest).read_bytes()
            self._reused += size
        else:
            path = f"{self._base}/manifests/{digest}"
            headers = {"Accept": ", ".join(MANIFEST_MEDIA_TYPES)}
            data = await self._session.fetch(path, size, headers)
            if len(data) != size or not digest.matches(data):
                raise Integrity(f"What came for manifest {digest} is not it.")
            await self._layout.put(digest, data)
            self._fetched += size
        self._progress(Step(digest, size, size))
        return parse_manifest(data, descriptor.media_type)

    async def _blobs(self, wanted: Mapping[Digest, Descriptor]) -> None:
        """Some at a time; the first that fails ends the rest, which keep what they have."""

        async def one(descriptor: Descriptor) -> None:
            async with self._gate:
                await self._blob(descriptor)

        try:
            async with asyncio.TaskGroup() as group:
                for descriptor in wanted.values():
                    group.create_task(one(descriptor))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _blob(self, descriptor: Descriptor) -> None:
        digest, size = descriptor.digest, descriptor.size
        if await self._layout.has(digest, size):
            self._reused += size
            self._progress(Step(digest, size, size))
            return
        async with await self._layout.partial(digest) as partial:
            if partial.size > size:
                await partial.restart()
            self._reused += partial.size
            resumed = partial.size > 0
            resumed |= await self._fill(partial, descriptor)
            try:
                await partial.publish(size)
            except Integrity:
                if not resumed:
                    raise
                # A partial may hold zeros after power loss; one whole transfer decides.
                await self._fill(partial, descriptor)
                await partial.publish(size)

    async def _fill(self, partial: Partial, descriptor: Descriptor) -> bool:
        """Fetch what is missing; True when it took more than one transfer."""
        transfers, failures = 0, 0
        while partial.size < descriptor.size:
            before = partial.size
            try:
                transfers += 1
                await self._transfer(partial, descriptor)
            except (Unavailable, Upstream) as error:
                failures = 1 if partial.size > before else failures + 1
                if failures >= ATTEMPTS:
                    raise
                wait = error.retry_after if error.retry_after is not None else 2.0 ** (failures - 1)
                await self._clock.sleep(min(wait, _LONGEST_WAIT_SECONDS))
        return transfers > 1

    async def _transfer(self, partial: Partial, descriptor: Descriptor) -> None:
        """One request's worth of the blob."""
        digest, size = descriptor.digest, descriptor.size
        headers = {"Range": f"bytes={partial.size}-"} if partial.size else {}
        async with self._session.get(f"{self._base}/blobs/{digest}", headers) as answer:
            expected = f"bytes {partial.size}-{size - 1}/{size}"
            if answer.status == 206 and answer.headers.get("Content-Range") != expected:
                raise Integrity(f"The facade sent another part of {digest} than was asked for.")
            if answer.status == 200 and partial.size:
                self._reused = max(0, self._reused - partial.size)
                await partial.restart()
            async for chunk in answer.chunks():
                if partial.size + len(chunk) > size:
                    raise Integrity(f"The facade sent more than the {size} bytes of {digest}.")
                await partial.write(chunk)
                self._fetched += len(chunk)
                self._progress(Step(digest, partial.size, size))
        if partial.size < size:
            raise Unavailable(f"The transfer of {digest} ended early.")
