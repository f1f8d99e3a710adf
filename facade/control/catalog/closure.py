"""What an image reaches, as a value, and the choices on the way. Pure.

Guarantees: the children of an index are chosen by the rule of the serving side
(`serving.trust.closure`), so what is imported is what can be pulled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from facade.control.catalog.ports import Fetched
from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.manifest import Descriptor, Index, Manifest, is_manifest_type, parse_manifest
from facade.oci.platform import Platform

Problem = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Closure:
    """An image and all that it reaches.

    Arguments:
        digest, length, media_type: of the top manifest; the digest is SHA-256.
        manifests: the bytes of every manifest, the top's and referrers' included.
        blobs: the size of every blob.
        referrers: digests of the referrers that were found.
        problems: (digest, sentence), when they were collected.
    """

    digest: Digest
    length: int
    media_type: str
    manifests: Mapping[Digest, bytes] = field(repr=False)
    blobs: Mapping[Digest, int] = field(repr=False)
    referrers: tuple[Digest, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of all manifests and blobs."""
        return sum(map(len, self.manifests.values())) + sum(self.blobs.values())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of an image is wanted.

    Arguments:
        platforms: the children of an index to take; empty = all.
        referrers: whether to ask what refers to it.
        blobs: whether to check them in the registry.
    """

    platforms: tuple[Platform, ...] = ()
    referrers: bool = False
    blobs: bool = True


def read_top(fetched: Fetched) -> Manifest:
    """The top manifest. Its own word on its type counts before the registry's claim.

    Raises Invalid.
    """
    manifest = parse_manifest(fetched.data)
    if is_manifest_type(fetched.media_type):
        try:
            return parse_manifest(fetched.data, fetched.media_type)
        except Invalid:
            return manifest
    return manifest


def is_for_a_platform(child: Descriptor) -> bool:
    """Whether it is an image to run; attestations are listed for the platform unknown/unknown."""
    return child.platform is not None and child.platform.os != "unknown"


def platforms_of(index: Index) -> tuple[str, ...]:
    """The platforms that an index has images for, in its order."""
    named = (str(child.platform) for child in index.manifests if is_for_a_platform(child))
    return tuple(dict.fromkeys(named))


def chosen_children(index: Index, platforms: tuple[Platform, ...]) -> Iterable[Descriptor]:
    """The children to take. Raises Invalid when a platform has none."""
    if not platforms:
        return index.manifests
    chosen = [
        child
        for child in index.manifests
        if child.platform is not None and any(map(child.platform.matches, platforms))
    ]
    for platform in platforms:
        if not any(child.platform and child.platform.matches(platform) for child in chosen):
            offered = sorted({str(child.platform) for child in index.manifests if child.platform})
            raise Invalid(
                f"The image has no {platform}. It has: {', '.join(offered) or 'none by name'}."
            )
    return chosen
