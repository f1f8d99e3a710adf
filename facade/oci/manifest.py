"""Manifests and indexes: bytes → value (OCI image-spec; Docker image manifest v2, schema 2).

Guarantees: what `parse_manifest` returns has one meaning for every reader: UTF-8 JSON without
duplicate keys, without a known field in another case (Go's encoding/json reads `Layers` as
`layers`), with one face (an index or an image, never both: CVE-2021-41190), digests and sizes
well-formed, strings fit for headers and logs. Does not guarantee that the bytes match any digest:
the caller has checked that. `urls` of foreign layers and embedded `data` are not even kept.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.platform import Platform
from facade.target import MAX_MANIFEST_BYTES

__all__ = [
    "IMAGE_MEDIA_TYPES",
    "INDEX_MEDIA_TYPES",
    "MANIFEST_MEDIA_TYPES",
    "MAX_BLOB_BYTES",
    "MAX_MANIFEST_BYTES",
    "OCI_INDEX",
    "OCI_MANIFEST",
    "Descriptor",
    "ImageManifest",
    "Index",
    "Manifest",
    "Platform",
    "is_manifest_type",
    "parse_manifest",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_MEDIA_TYPES = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
"""What we accept from registries. All are always sent: docker-registry answers 404 for an OCI
index when asked with `*/*`."""
INDEX_MEDIA_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
IMAGE_MEDIA_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
MAX_BLOB_BYTES = 2**53 - 1
"""Largest size a descriptor may state: the largest integer that JSON carries everywhere."""

_SCHEMA_1_PREFIX = "application/vnd.docker.distribution.manifest.v1+"
_MEDIA_TYPE = re.compile(r"[\x21-\x7e]+/[\x21-\x7e][\x20-\x7e]*", re.ASCII)
_MAX_MEDIA_TYPE_CHARS = 255
_FIELDS = frozenset(
    {
        *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject"),
        *("annotations", "digest", "size", "platform", "urls", "data"),  # descriptors
        *("os", "architecture", "variant"),  # platforms
        *("fsLayers", "history", "signatures"),  # schema 1
    }
)
_FOLDED_FIELDS = frozenset(name.casefold() for name in _FIELDS)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content (OCI image-spec, descriptor.md). `size` in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """An OCI image index or Docker manifest list."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """An OCI image manifest or Docker manifest (version 2, schema 2)."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)


Manifest = Index | ImageManifest


def is_manifest_type(media_type: str) -> bool:
    """Whether content of this type is a manifest or index that we read."""
    return media_type in MANIFEST_MEDIA_TYPES


def parse_manifest(data: bytes, media_type: str | None = None) -> Manifest:
    """Read a manifest or index.

    Arguments:
        data: the bytes, at most MAX_MANIFEST_BYTES.
        media_type: what they must be (the verified descriptor's type), without parameters.
            None = whatever the body says; a body that says nothing is OCI, by its shape.

    Raises Invalid, saying what is wrong.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise Invalid(f"The manifest is larger than {MAX_MANIFEST_BYTES} bytes.")
    document = _load(data)
    claimed = _text(document, "mediaType")
    if (
        document.get("schemaVersion") == 1
        or "fsLayers" in document
        or any(text.startswith(_SCHEMA_1_PREFIX) for text in (claimed, media_type or ""))
    ):
        raise Invalid(
            "This is a Docker schema 1 manifest, which is not supported. Re-push the image with "
            "a current Docker, podman or buildah."
        )
    if type(document.get("schemaVersion")) is not int or document["schemaVersion"] != 2:
        raise Invalid("The manifest's schemaVersion is not 2.")
    is_index = "manifests" in document
    if is_index and ("layers" in document or "config" in document):
        raise Invalid("The manifest claims to be both an index and an image; it is refused.")
    if media_type is not None and claimed and claimed != media_type:
        raise Invalid(f"The manifest calls itself {claimed}, but {media_type} was promised.")
    kind = claimed or media_type or (OCI_INDEX if is_index else OCI_MANIFEST)
    if kind not in (INDEX_MEDIA_TYPES if is_index else IMAGE_MEDIA_TYPES):
        raise Invalid(
            f"{kind} is not the type of {'an index' if is_index else 'an image manifest'} that "
            "is supported."
        )
    subject = (
        None if document.get("subject") is None else _descriptor(document["subject"], "subject")
    )
    artifact_type, annotations = _text(document, "artifactType"), _annotations(document)
    if is_index:
        manifests = _descriptors(document, "manifests")
        return Index(kind, manifests, subject, artifact_type, annotations)
    config, layers = _descriptor(document.get("config"), "config"), _descriptors(document, "layers")
    return ImageManifest(kind, config, layers, subject, artifact_type, annotations)


def _load(data: bytes) -> Mapping[str, Any]:
    try:
        # Decoded here: json.loads would guess UTF-16 and UTF-32 too, which clients do not.
        document = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise Invalid("The manifest is not valid JSON.") from error
    return _mapping(document, "manifest")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise Invalid("The manifest has a key twice; which one counts depends on the reader.")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"The manifest's {what} is not an object.")
    for key in value:
        if key not in _FIELDS and key.casefold() in _FOLDED_FIELDS:
            raise Invalid(
                f"The manifest's {what} has a known field in another case; which one counts "
                "depends on the reader."
            )
    return value


def _descriptors(document: Mapping[str, Any], key: str) -> tuple[Descriptor, ...]:
    values = document.get(key)
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise Invalid(f"The manifest's {key} is not a list.")
    return tuple(_descriptor(value, key) for value in values)


def _descriptor(value: object, what: str) -> Descriptor:
    entry = _mapping(value, what)
    media_type, size, digest = _text(entry, "mediaType"), entry.get("size"), entry.get("digest")
    if not media_type:
        raise Invalid(f"A descriptor in the manifest's {what} has no mediaType.")
    if type(size) is not int or not 0 <= size <= MAX_BLOB_BYTES:  # a bool is an int, too
        raise Invalid(f"A descriptor in the manifest's {what} has no usable size.")
    if not isinstance(digest, str):
        raise Invalid(f"A descriptor in the manifest's {what} has no digest.")
    return Descriptor(
        media_type=media_type,
        digest=Digest.parse(digest),
        size=size,
        platform=_platform(entry.get("platform")),
        annotations=_annotations(entry),
        artifact_type=_text(entry, "artifactType"),
    )


def _text(entry: Mapping[str, Any], key: str) -> str:
    """A media type, "" when absent or null. Printable ASCII only: it goes into headers."""
    value = entry.get(key)
    if value is None or value == "":
        return ""
    if (
        not isinstance(value, str)
        or len(value) > _MAX_MEDIA_TYPE_CHARS
        or not _MEDIA_TYPE.fullmatch(value)
    ):
        raise Invalid(f"The manifest's {key} is not a media type.")
    return value


def _annotations(entry: Mapping[str, Any]) -> Mapping[str, str]:
    value = entry.get("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(map(_is_text, (*value.keys(), *value.values()))):
        raise Invalid("The manifest's annotations are not an object of strings.")
    return value


def _is_text(value: object) -> bool:
    """Whether it is a string without lone surrogates, which no log or socket can encode."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _platform(value: object) -> Platform | None:
    """The platform, None when it is absent or none that anybody could ask for by name."""
    if value is None:
        return None
    entry = _mapping(value, "platform")
    os, architecture, variant = (entry.get(key, "") for key in ("os", "architecture", "variant"))
    if not (isinstance(os, str) and isinstance(architecture, str) and isinstance(variant, str)):
        raise Invalid("The manifest's platform is not made of strings.")
    if "/" in os or "/" in architecture:
        return None
    try:
        return Platform.parse(f"{os}/{architecture}" + (f"/{variant}" if variant else ""))
    except Invalid:
        return None
