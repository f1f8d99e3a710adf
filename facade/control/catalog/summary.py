"""What a manifest is, in a few numbers for a person: platforms, sizes, creation, annotations.

Guarantees: bounded in requests (an index of many platforms is shown without the sizes of its images);
an image of an index that cannot be read is shown without its size rather than not at all. Nothing
here is signed or trusted: import walks the image again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from facade.control.catalog.closure import is_for_a_platform, read_top
from facade.control.catalog.image_config import platform_of, read_config
from facade.control.catalog.ports import Fetched, Registry
from facade.errors import FacadeError
from facade.oci.digest import Digest
from facade.oci.manifest import (
    IMAGE_MEDIA_TYPES,
    MAX_MANIFEST_BYTES,
    Descriptor,
    ImageManifest,
    Index,
)
from facade.oci.reference import Repository
from facade.upstream.connection import Connection

MAX_IMAGES = 32
"""Images of an index that are read for their sizes."""
PARALLEL_IMAGES = 8

_CREATED = "org.opencontainers.image.created"


@dataclass(frozen=True, slots=True)
class PlatformSummary:
    """One image of an index, or the image itself.

    Arguments:
        size: bytes of its manifest.
        total_bytes: of its config and layers; None = not known.
    """

    platform: str
    digest: Digest
    size: int
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """What a reference is just now.

    Arguments:
        size: bytes of the manifest itself.
        total_bytes: config and layers, of all platforms' images together; what they share counts
            once. None = not known.
        created: as the index or the (first) image says, RFC 3339.
    """

    digest: Digest
    media_type: str
    size: int
    platforms: tuple[PlatformSummary, ...] = ()
    total_bytes: int | None = None
    created: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


class Summary:
    """Makes summaries of one repository's manifests."""

    def __init__(self, registry: Registry, connection: Connection, repository: Repository) -> None:
        self._registry = registry
        self._connection = connection
        self._repository = repository

    async def of(self, fetched: Fetched) -> ManifestSummary:
        """The summary of a manifest.

        Raises Invalid for what is no image, Upstream when an image's configuration is not given.
        """
        top = read_top(fetched)
        if isinstance(top, Index):
            return await self._of_index(fetched, top)
        blobs = _blobs(top)
        platform, created = await self._config(top)
        total = sum(blobs.values())
        return ManifestSummary(
            digest=fetched.digest,
            media_type=top.media_type,
            size=len(fetched.data),
            platforms=(PlatformSummary(platform, fetched.digest, len(fetched.data), total),)
            if platform
            else (),
            total_bytes=total,
            created=created,
            annotations=top.annotations,
        )

    async def _of_index(self, fetched: Fetched, index: Index) -> ManifestSummary:
        named = [child for child in index.manifests if is_for_a_platform(child)]
        images = await self._images(named)
        created = index.annotations.get(_CREATED)
        first = next((image for image in images if image is not None), None)
        if created is None and first is not None:
            try:
                _, created = await self._config(first)
            except FacadeError:
                created = None  # it is an extra: the index itself was read
        blobs: dict[Digest, int] = {}
        for image in images:
            blobs |= _blobs(image) if image is not None else {}
        return ManifestSummary(
            digest=fetched.digest,
            media_type=index.media_type,
            size=len(fetched.data),
            platforms=tuple(
                PlatformSummary(
                    str(child.platform),
                    child.digest,
                    child.size,
                    None if image is None else sum(_blobs(image).values()),
                )
                for child, image in zip(named, images, strict=True)
            ),
            total_bytes=sum(blobs.values()) if named and None not in images else None,
            created=created,
            annotations=index.annotations,
        )

    async def _images(self, children: Sequence[Descriptor]) -> Sequence[ImageManifest | None]:
        """The children's manifests; None for one that cannot be read, and for all when too many."""
        if len(children) > MAX_IMAGES:
            return [None] * len(children)
        slots = asyncio.Semaphore(PARALLEL_IMAGES)

        async def one(child: Descriptor) -> ImageManifest | None:
            if child.media_type not in IMAGE_MEDIA_TYPES or child.size > MAX_MANIFEST_BYTES:
                return None
            try:
                async with slots:
                    fetched = await self._registry.manifest(
                        self._connection, self._repository, child.digest
                    )
                manifest = read_top(fetched)
            except FacadeError:
                return None
            return manifest if isinstance(manifest, ImageManifest) else None

        return await asyncio.gather(*map(one, children))

    async def _config(self, image: ImageManifest) -> tuple[str, str | None]:
        """The platform ("" = none stated) and creation that an image's configuration states."""
        config = await read_config(self._registry, self._connection, self._repository, image.config)
        created = config.get("created")
        return (
            str(platform_of(config) or ""),
            created if isinstance(created, str) else image.annotations.get(_CREATED),
        )


def _blobs(image: ImageManifest) -> dict[Digest, int]:
    return {blob.digest: blob.size for blob in (image.config, *image.layers)}
