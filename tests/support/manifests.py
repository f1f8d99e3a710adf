"""Manifests made by hand, honest or not, for tests of what a manifest reaches.

Guarantees: everything is deterministic, and every manifest parses. Holds no real layers: blobs are
short strings (`image` makes images that run).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """A descriptor of `data`; `more` adds or replaces members."""
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def image_manifest(config: bytes, layers: Sequence[bytes], /, **more: Any) -> bytes:
    """An OCI image manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, CONFIG_TYPE),
        "layers": [descriptor(layer, LAYER_TYPE) for layer in layers],
        **more,
    }
    return json.dumps(document).encode()


def image_index(children: Sequence[dict[str, Any]], /, **more: Any) -> bytes:
    """An OCI image index."""
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children), **more}
    return json.dumps(document).encode()


@dataclass(frozen=True)
class PlainImage:
    """A multi-platform image named `name`, with two layers for each platform."""

    name: str
    platforms: tuple[str, ...] = ("linux/amd64", "linux/arm64")
    manifests: dict[str, bytes] = field(init=False)
    index: bytes = field(init=False)

    def __post_init__(self) -> None:
        manifests = {
            platform: image_manifest(self.config(platform), self.layers(platform))
            for platform in self.platforms
        }
        children = []
        for platform, manifest in manifests.items():
            os, _, architecture = platform.partition("/")
            children.append(
                descriptor(
                    manifest, OCI_MANIFEST, platform={"os": os, "architecture": architecture}
                )
            )
        object.__setattr__(self, "manifests", manifests)
        object.__setattr__(self, "index", image_index(children))

    def config(self, platform: str) -> bytes:
        """The config's bytes."""
        return f"config of {self.name} {platform}".encode()

    def layers(self, platform: str) -> tuple[bytes, bytes]:
        """The layers' bytes."""
        return f"base {platform}".encode(), f"layer of {self.name} {platform}".encode()

    @property
    def every_manifest(self) -> tuple[bytes, ...]:
        """The index and its children."""
        return self.index, *self.manifests.values()
