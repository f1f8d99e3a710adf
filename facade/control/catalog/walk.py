"""Walking an image: everything that its top manifest reaches, checked against the registry.

Guarantees: every manifest of a returned `Closure` was read whole, hashes to the digest that names it,
has the size that its descriptor states and reads as the type that it states; every blob exists in
the repository with the size stated. What the serving side would refuse (two faces, too deep, a
child of another type) is refused here already, in words. Bounded in manifests, depth and requests
at once. Does not read blobs (an image's config aside) and follows no foreign layer's `urls`.
"""

import asyncio
from collections.abc import Awaitable, Callable

from facade.control.catalog.closure import Closure, Problem, Wanted, chosen_children, read_top
from facade.control.catalog.image_config import platform_of, read_config
from facade.control.catalog.ports import Fetched, Registry
from facade.errors import FacadeError, Integrity, Invalid, Upstream
from facade.oci.digest import Digest
from facade.oci.manifest import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    ImageManifest,
    Manifest,
    is_manifest_type,
    parse_manifest,
)
from facade.oci.platform import Platform
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.upstream.connection import Connection

MAX_DEPTH = 4
"""Levels of manifests below one another (trust.md, "The closure")."""
MAX_MANIFESTS = 256
"""Manifests of one artifact, referrers included."""
MAX_REFERRERS = 64
PARALLEL = 8
"""Requests that all walks of one upstream make at once."""

_CONCERNS_CONTENT = frozenset({Reason.UPSTREAM_NOT_FOUND, Reason.INTEGRITY})
Load = Callable[[Digest | Tag], Awaitable[Fetched]]


class Walk:
    """One walk through one image.

    Arguments:
        gate: bounds the requests that all walks of one upstream make at once.
        load: where manifests come from; the registry when None.
        collect: collect what is wrong with the content instead of raising at the first.
        checked: sizes of blobs that this repository was seen to have a moment ago; added to.
    """

    def __init__(
        self,
        registry: Registry,
        connection: Connection,
        repository: Repository,
        gate: asyncio.Semaphore,
        *,
        load: Load | None = None,
        collect: bool = False,
        checked: dict[Digest, int] | None = None,
    ) -> None:
        self._registry = registry
        self._connection = connection
        self._repository = repository
        self._gate = gate
        self._load = load or self._fetch
        self._collect = collect
        self._checked = {} if checked is None else checked
        self._manifests: dict[Digest, bytes] = {}
        self._blobs: dict[Digest, int] = {}
        self._subjects: list[Digest] = []
        self._problems: list[Problem] = []

    async def run(self, reference: Digest | Tag, wanted: Wanted) -> Closure:
        """Walk everything.

        Raises Invalid (what cannot be signed or served), Integrity, Upstream.
        """
        async with self._gate:
            fetched = await self._load(reference)
        digest = Digest.of(fetched.data)
        if isinstance(reference, Digest) and reference != digest:
            raise Invalid("Import by tag, or by a sha256 digest: signed metadata names no other.")
        top = read_top(fetched)
        self._manifests[digest] = fetched.data
        self._subjects.append(digest)
        if isinstance(top, ImageManifest) and wanted.blobs:
            await self._check_platform(top, wanted.platforms)
        await self._expand(digest, top, wanted.platforms, depth=1)
        referrers = await self._referrers() if wanted.referrers else ()
        if wanted.blobs:
            await self._check_blobs()
        return Closure(
            digest=digest,
            length=len(fetched.data),
            media_type=top.media_type,
            manifests=self._manifests,
            blobs=self._blobs,
            referrers=referrers,
            problems=tuple(self._problems),
        )

    async def _check_platform(self, image: ImageManifest, platforms: tuple[Platform, ...]) -> None:
        """A single image is for one platform: the only one that may be wanted."""
        if not platforms:
            return
        async with self._gate:
            config = await read_config(
                self._registry, self._connection, self._repository, image.config
            )
        own = platform_of(config)
        if own is None or not all(map(own.matches, platforms)):
            raise Invalid(
                f"This is a single image for {own or 'no platform by name'}, not an index of "
                "several. Import it without --platform."
            )

    async def _fetch(self, reference: Digest | Tag) -> Fetched:
        return await self._registry.manifest(self._connection, self._repository, reference)

    async def _expand(
        self, digest: Digest, manifest: Manifest, platforms: tuple[Platform, ...], *, depth: int
    ) -> None:
        if isinstance(manifest, ImageManifest):
            for blob in (manifest.config, *manifest.layers):
                self._add_blob(blob)
            return
        for child in chosen_children(manifest, platforms):
            if not is_manifest_type(child.media_type):
                self._add_blob(child)
            elif child.digest not in self._manifests:
                if depth >= MAX_DEPTH:
                    raise Invalid(
                        f"The index {digest} lies more than {MAX_DEPTH} levels deep; that is not "
                        "supported."
                    )
                try:
                    await self._child(child, platforms, depth)
                except FacadeError as error:
                    self._note(child.digest, error)

    async def _child(self, child: Descriptor, platforms: tuple[Platform, ...], depth: int) -> None:
        if child.size > MAX_MANIFEST_BYTES:
            raise Invalid(f"The manifest {child.digest} is larger than {MAX_MANIFEST_BYTES} bytes.")
        data = await self._manifest(child.digest)
        if len(data) != child.size:
            raise Integrity(
                f"The index says that {child.digest} has {child.size} bytes; it has {len(data)}."
            )
        manifest = parse_manifest(data, child.media_type)
        self._subjects.append(child.digest)
        await self._expand(child.digest, manifest, platforms, depth=depth + 1)

    async def _manifest(self, digest: Digest) -> bytes:
        if digest in self._manifests:
            return self._manifests[digest]
        if len(self._manifests) >= MAX_MANIFESTS:
            raise Invalid(f"The image has more than {MAX_MANIFESTS} manifests; choose platforms.")
        async with self._gate:
            fetched = await self._load(digest)
        if not digest.matches(fetched.data):
            raise Integrity(f"The manifest's bytes do not have the digest {digest}.")
        self._manifests[digest] = fetched.data
        return fetched.data

    def _add_blob(self, blob: Descriptor) -> None:
        known = self._blobs.setdefault(blob.digest, blob.size)
        if known != blob.size:
            self._note(
                blob.digest,
                Integrity(f"The image states two sizes for the blob {blob.digest}."),
            )

    async def _check_blobs(self) -> None:
        blobs = list(self._blobs.items())

        async def check(digest: Digest, size: int) -> None:
            try:
                await self._check_blob(digest, size)
            except FacadeError as error:
                self._note(digest, error)

        try:
            async with asyncio.TaskGroup() as group:
                for digest, size in blobs:
                    group.create_task(check(digest, size))
        except* FacadeError as errors:
            raise _first(errors) from None

    async def _check_blob(self, digest: Digest, size: int) -> None:
        if self._checked.get(digest) == size:
            return
        async with self._gate:
            found = await self._registry.blob_size(self._connection, self._repository, digest)
        if found is None:
            raise Upstream(
                f"{self._connection.host} does not have the blob {digest}, which the image in "
                f"{self._repository} names. Push the image again.",
                reason=Reason.UPSTREAM_NOT_FOUND,
                status=404,
            )
        if found != size:
            raise Integrity(
                f"The image says that the blob {digest} has {size} bytes; "
                f"{self._connection.host} has {found}."
            )
        self._checked[digest] = size

    async def _referrers(self) -> tuple[Digest, ...]:
        """What refers to the top manifest or to a platform's, each with what it reaches."""
        found: dict[Digest, None] = {}
        for subject in tuple(self._subjects):
            async with self._gate:
                index = await self._registry.referrers(self._connection, self._repository, subject)
            for descriptor in index.manifests:
                if not is_manifest_type(descriptor.media_type) or descriptor.digest in found:
                    continue
                if len(found) >= MAX_REFERRERS:
                    raise Invalid(
                        f"More than {MAX_REFERRERS} signatures and other referrers; import "
                        "without --with-referrers."
                    )
                # Read as the serving side will, which has no descriptor for it.
                manifest = parse_manifest(await self._manifest(descriptor.digest))
                if manifest.subject is None or manifest.subject.digest != subject:
                    raise Invalid(f"{descriptor.digest} does not refer to {subject}, as claimed.")
                found[descriptor.digest] = None
                await self._expand(descriptor.digest, manifest, (), depth=1)
        return tuple(found)

    def _note(self, digest: Digest, error: FacadeError) -> None:
        """Collect what is wrong with the content; raise it, and whatever else, otherwise."""
        about_content = isinstance(error, Invalid) or error.reason in _CONCERNS_CONTENT
        if not (self._collect and about_content):
            raise error
        self._problems.append((str(digest), error.message))


def _first(errors: BaseExceptionGroup[FacadeError]) -> FacadeError:
    """One error of a group, the same for the same group: the first that was raised."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, FacadeError)
    return error
