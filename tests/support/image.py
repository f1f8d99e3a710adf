"""Images for tests, and pushing them to a registry over HTTP.

Guarantees: made by `facade.demo.image` on the spot, real enough to be run by podman; `push` leaves a
registry with all of the image, or raises.
"""

import io
import json
from collections.abc import Mapping
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from facade.demo.image import Image, make_image
from facade.oci.digest import Digest
from facade.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST

__all__ = [
    "Image",
    "add_referrer",
    "docker_form",
    "make_image",
    "one_layer_image",
    "push",
    "small_image",
    "with_two_sizes",
]

_DOCKER_TYPES = {
    OCI_INDEX: DOCKER_LIST,
    OCI_MANIFEST: DOCKER_MANIFEST,
    "application/vnd.oci.image.config.v1+json": "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip": (
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
    ),
}


def small_image(line: str = "hello from the test image") -> Image:
    """A multi-arch image of a few KiB; another line gives another image."""
    return make_image(line=line, payload_bytes=2048)


def one_layer_image(payload: bytes) -> Image:
    """An image of one platform, no index, whose only layer is `payload` (not even a tar)."""
    config = b'{"architecture":"amd64","os":"linux"}'
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor("application/vnd.oci.image.config.v1+json", config),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", payload)],
        }
    ).encode()
    digest = Digest.of(manifest)
    blobs = {Digest.of(config): config, Digest.of(payload): payload}
    return Image(digest, {digest: (OCI_MANIFEST, manifest)}, blobs)


def docker_form(image: Image) -> Image:
    """The same image with Docker's media types (manifest list and schema 2)."""
    manifests: dict[Digest, tuple[str, bytes]] = {}
    _, index = image.manifests[image.index]
    document = json.loads(index)
    for child in document["manifests"]:
        _, data = image.manifests[Digest.parse(child["digest"])]
        data = _translated(data)
        digest = Digest.of(data)
        manifests[digest] = (DOCKER_MANIFEST, data)
        child.update(digest=str(digest), size=len(data))
    top = _translated(json.dumps(document, indent=2).encode())
    manifests[Digest.of(top)] = (DOCKER_LIST, top)
    return Image(Digest.of(top), manifests, image.blobs)


def add_referrer(image: Image, artifact_type: str, payload: bytes) -> tuple[Image, Digest]:
    """The image with an artifact that refers to its index: (image, the artifact's digest)."""
    media_type, index = image.manifests[image.index]
    empty = b"{}"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": _descriptor("application/vnd.oci.empty.v1+json", empty),
            "layers": [_descriptor("application/octet-stream", payload)],
            "subject": _descriptor(media_type, index),
        }
    ).encode()
    digest = Digest.of(manifest)
    blobs = {**image.blobs, Digest.of(empty): empty, Digest.of(payload): payload}
    return (
        Image(image.index, {**image.manifests, digest: (OCI_MANIFEST, manifest)}, blobs),
        digest,
    )


async def push(
    url: str,
    repository: str,
    image: Image,
    *tags: str,
    headers: Mapping[str, str] | None = None,
) -> Digest:
    """Push to the registry at `url`; the index gets the tags. Returns its digest.

    Arguments:
        headers: sent with every request; an Authorization that may push, where one is needed.
    """
    base = f"{url}/v2/{repository}"
    async with aiohttp.ClientSession(headers=headers, raise_for_status=True) as session:
        for digest, data in image.blobs.items():
            async with session.post(f"{base}/blobs/uploads/") as started:
                location = started.url.join(URL(started.headers["Location"], encoded=True))
            query = urlencode({"digest": str(digest)})
            separator = "&" if location.query_string else "?"
            async with session.put(
                URL(f"{location}{separator}{query}", encoded=True),
                data=io.BytesIO(data),
                headers={"Content-Type": "application/octet-stream"},
            ):
                pass
        # Children before the index that names them: registries check.
        order = sorted(image.manifests, key=lambda digest: digest == image.index)
        for digest in order:
            media_type, data = image.manifests[digest]
            references = [str(digest), *(tags if digest == image.index else ())]
            for reference in references:
                async with session.put(
                    f"{base}/manifests/{reference}",
                    data=io.BytesIO(data),
                    headers={"Content-Type": media_type},
                ):
                    pass
    return image.index


def with_two_sizes(image: Image) -> Image:
    """An index of two images with one layer, whose sizes disagree: the registry has to be asked.

    Arguments:
        image: one manifest, with that layer.
    """
    ((_, right),) = image.manifests.values()
    document = json.loads(right)
    document["layers"][0]["size"] += 1
    wrong = json.dumps(document).encode()
    children = {Digest.of(data): (OCI_MANIFEST, data) for data in (wrong, right)}
    described = [_descriptor(media_type, data) for media_type, data in children.values()]
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described})
    top = Digest.of(index.encode())
    return Image(top, {**children, top: (OCI_INDEX, index.encode())}, image.blobs)


def _translated(data: bytes) -> bytes:
    text = data.decode()
    for oci, docker in _DOCKER_TYPES.items():
        text = text.replace(f'"{oci}"', f'"{docker}"')
    return text.encode()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}
