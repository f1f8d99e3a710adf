"""Which of an index's images a device takes. Pure but for the name of this machine."""

import platform as machine

from facade.errors import Invalid
from facade.oci.manifest import Descriptor, Index
from facade.oci.platform import Platform
from facade.target import SignedTarget


def served(index: Index, target: SignedTarget) -> list[Descriptor]:
    """The children that the signed target lets the facade serve."""
    if not target.platforms:
        return list(index.manifests)
    allowed = [Platform.parse(text) for text in target.platforms]
    return [
        child
        for child in index.manifests
        if child.platform and any(child.platform.matches(one) for one in allowed)
    ]


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The child for `wanted`. Raises Invalid, naming what there is."""
    for child in index.manifests:
        if child.platform is not None and child.platform.matches(wanted):
            return child
    offered = sorted({str(child.platform) for child in index.manifests if child.platform})
    raise Invalid(
        f"The image is not made for {wanted}, but for: {', '.join(offered) or 'nothing named'}."
    )


def platform_of(text: str | None) -> Platform:
    """The platform that was asked for; None = this machine's. Raises Invalid."""
    if text is not None:
        return Platform.parse(text)
    architecture = machine.machine().lower()
    variants = {"armv6l": "arm/v6", "armv7l": "arm/v7", "armv8l": "arm/v7", "i686": "386"}
    return Platform.parse(f"linux/{variants.get(architecture, architecture)}")
