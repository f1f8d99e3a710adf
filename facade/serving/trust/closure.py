"""What a verified manifest reaches: its edges. Pure.

Guarantees: edges come from the manifest's own bytes, after their digest, size, media type and
single face were checked; a role is given by where a descriptor stands (a layer is a blob whatever
it calls itself); children of an index that the platforms exclude get no edge. Nothing follows a
`subject` or a foreign layer's `urls`. Does not know who signed what: `walk` does.
"""

from dataclasses import dataclass

from facade.errors import Integrity, Invalid
from facade.oci.digest import Digest
from facade.oci.manifest import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Index,
    Manifest,
    is_manifest_type,
    parse_manifest,
)
from facade.oci.platform import Platform
from facade.oci.request import Role
from facade.target import SignedTarget


@dataclass(frozen=True, slots=True)
class Edge:
    """`parent` names `digest`. `size` in bytes."""

    role: Role
    digest: Digest
    size: int
    media_type: str
    parent: Digest


@dataclass(frozen=True, slots=True)
class Allowed:
    """A decision: these bytes may be served.

    Arguments:
        digest, size, media_type: of the content; the type is the descriptor's, as signed.
        role: served as this and nothing else.
        target: the signed artifact that it belongs to (the newest, if several).
        sizes: every size that some descriptor states for it, `size` first. More than one means
            that all but one are wrong; whoever holds the bytes can tell which.
    """

    digest: Digest
    size: int
    media_type: str
    role: Role
    target: SignedTarget
    sizes: tuple[int, ...]


def platforms_of(target: SignedTarget) -> tuple[Platform, ...]:
    """The platforms that the target limits its index to; empty = all."""
    return tuple(map(Platform.parse, target.platforms))


def verified_manifest(data: bytes, digest: Digest, size: int | None, media_type: str) -> Manifest:
    """Read a manifest that has to be this one.

    Arguments:
        size: the descriptor's, in bytes; None = nobody stated one (signed referrers).
        media_type: the descriptor's; "" = nobody stated one.

    Raises Integrity when digest or size differ, and Invalid when the bytes are what they should
    be but cannot be served: two faces, or another media type than promised (CVE-2021-41190).
    """
    if not digest.matches(data):
        raise Integrity(f"The manifest's bytes do not have the digest {digest}.")
    if size is not None and len(data) != size:
        raise Invalid(f"The manifest {digest} has {len(data)} bytes, not {size}.")
    return parse_manifest(data, media_type or None)


def servable(data: bytes, allowed: Allowed) -> Manifest:
    """The manifest in `data`, if it may be sent as the answer to `allowed`. Raises Integrity."""
    try:
        return verified_manifest(data, allowed.digest, allowed.size, allowed.media_type)
    except Invalid as error:
        raise Integrity(error.message) from error


def edges(
    parent: Digest, manifest: Manifest, platforms: tuple[Platform, ...] = ()
) -> tuple[Edge, ...]:
    """Everything that the manifest grants."""
    if isinstance(manifest, Index):
        return tuple(
            Edge(
                Role.MANIFEST if is_manifest_type(child.media_type) else Role.BLOB,
                child.digest,
                child.size,
                child.media_type,
                parent,
            )
            for child in manifest.manifests
            if _wanted(child, platforms)
        )
    return tuple(
        Edge(Role.BLOB, blob.digest, blob.size, blob.media_type, parent)
        for blob in (manifest.config, *manifest.layers)
    )


def _wanted(child: Descriptor, platforms: tuple[Platform, ...]) -> bool:
    if is_manifest_type(child.media_type) and child.size > MAX_MANIFEST_BYTES:
        return False
    if not platforms:
        return True
    return child.platform is not None and any(map(child.platform.matches, platforms))
