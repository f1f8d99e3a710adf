"""Manifests: what real registries hold is read, what two readers could read differently is refused."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    IMAGE_MEDIA_TYPES,
    INDEX_MEDIA_TYPES,
    MANIFEST_MEDIA_TYPES,
    MAX_BLOB_BYTES,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    ImageManifest,
    Index,
    is_manifest_type,
    parse_manifest,
)
from facade.oci.platform import Platform

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def descriptor(media_type: str = LAYER, size: object = 7, **more: object) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(b"x")), "size": size, **more}


def image(**changes: object) -> dict[str, Any]:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG),
        "layers": [descriptor()],
    }
    return {key: value for key, value in (document | changes).items() if value is not ...}


def index(**changes: object) -> dict[str, Any]:
    child = descriptor(OCI_MANIFEST, platform={"os": "linux", "architecture": "arm64"})
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
    return {key: value for key, value in (document | changes).items() if value is not ...}


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def test_an_image_manifest() -> None:
    manifest = parse_manifest(encode(image(annotations={"a": "b"}, artifactType="a/b")))
    assert isinstance(manifest, ImageManifest)
    assert manifest.media_type == OCI_MANIFEST
    assert manifest.config.media_type == CONFIG
    assert [(layer.digest, layer.size) for layer in manifest.layers] == [(Digest.of(b"x"), 7)]
    assert manifest.annotations == {"a": "b"}
    assert manifest.artifact_type == "a/b"
    assert manifest.subject is None
    assert len({manifest, manifest}) == 1


def test_an_index() -> None:
    manifest = parse_manifest(encode(index(subject=descriptor(OCI_MANIFEST))))
    assert isinstance(manifest, Index)
    assert [str(child.platform) for child in manifest.manifests] == ["linux/arm64"]
    assert manifest.subject is not None
    assert manifest.subject.media_type == OCI_MANIFEST


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_both_kinds_of_image_with_and_without_a_promise(kind: str) -> None:
    data = encode(image(mediaType=kind))
    assert parse_manifest(data) == parse_manifest(data, kind)
    assert parse_manifest(data).media_type == kind


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_both_kinds_of_index_with_and_without_a_promise(kind: str) -> None:
    data = encode(index(mediaType=kind))
    assert parse_manifest(data, kind).media_type == parse_manifest(data).media_type == kind


def test_without_a_media_type_the_promise_counts_then_the_shape() -> None:
    assert parse_manifest(encode(image(mediaType=...))).media_type == OCI_MANIFEST
    assert parse_manifest(encode(index(mediaType=...))).media_type == OCI_INDEX
    promised = parse_manifest(encode(image(mediaType=...)), DOCKER_MANIFEST)
    assert promised.media_type == DOCKER_MANIFEST


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (image(schemaVersion=1, fsLayers=[]), "schema 1.*[Rr]e-push"),
        (image(mediaType="application/vnd.docker.distribution.manifest.v1+json"), "schema 1"),
        (image(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"), "schema 1"),
        (image(fsLayers=[]), "schema 1"),
        (image(schemaVersion=...), "schemaVersion"),
        (image(schemaVersion="2"), "schemaVersion"),
        (image(schemaVersion=2.0), "schemaVersion"),
        (image(schemaVersion=3), "schemaVersion"),
        (image(manifests=[]), "both"),
        (index(layers=[]), "both"),
        (index(config=descriptor()), "both"),
        (index(config=None), "both"),
        (index(Layers=[]), "another case"),
        (image(MANIFESTS=[]), "another case"),
        (image() | {"manife\u017fts": []}, "another case"),
        (image(layers=[descriptor(Digest="x")]), "another case"),
        (image(mediaType=OCI_INDEX), "not the type"),
        (index(mediaType=OCI_MANIFEST), "not the type"),
        (image(mediaType="application/vnd.oci.artifact.manifest.v1+json"), "not the type"),
        (image(mediaType=7), "media type"),
        (image(mediaType="a/b\r\nX: y"), "media type"),
        (image(mediaType="a/" + "b" * 300), "media type"),
        (image(config=...), "config"),
        (image(config=[]), "config"),
        (image(layers=...), "layers"),
        (image(layers={}), "layers"),
        (image(layers="ab"), "layers"),
        (image(layers=[7]), "layers"),
        (image(layers=[descriptor(size=-1)]), "size"),
        (image(layers=[descriptor(size=MAX_BLOB_BYTES + 1)]), "size"),
        (image(layers=[descriptor(size=7.0)]), "size"),
        (image(layers=[descriptor(size=True)]), "size"),
        (image(layers=[descriptor(size="7")]), "size"),
        (image(layers=[descriptor(size=None)]), "size"),
        (image(layers=[descriptor(digest="sha256:x")]), "digest"),
        (image(layers=[descriptor(digest=7)]), "digest"),
        (image(layers=[descriptor(media_type="")]), "mediaType"),
        (image(layers=[descriptor(media_type="text")]), "media type"),
        (image(subject="x"), "subject"),
        (image(annotations=[]), "annotations"),
        (image(annotations={"a": 1}), "annotations"),
        (image(annotations={"a": "\ud800"}), "annotations"),
        (index(manifests=[descriptor(OCI_MANIFEST, platform="linux")]), "platform"),
        (index(manifests=[descriptor(OCI_MANIFEST, platform={"os": 1})]), "platform"),
        ([], "not an object"),
        ("x", "not an object"),
        (None, "not an object"),
    ],
)
def test_refused_with_words(document: object, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse_manifest(encode(document))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"size": NaN}',
        b'{"size": Infinity}',
        b'{"size": ' + b"9" * 5000 + b"}",
        encode(image()) + b"x",
        b"\xef\xbb\xbf" + encode(image()),
        json.dumps(image()).encode("utf-16"),
    ],
    ids=range(10),
)
def test_what_is_not_plain_json_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match="JSON"):
        parse_manifest(data)


@pytest.mark.parametrize(
    "data",
    [
        encode(image())[:-1] + b', "layers": []}',
        encode(image()).replace(b'"size": 7', b'"size": 7, "size": 8'),
        encode(image(annotations={"a": "b"})).replace(b'"a": "b"', b'"a": "b", "a": "c"'),
    ],
    ids=["top", "descriptor", "annotations"],
)
def test_a_key_twice_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid, match="twice"):
        parse_manifest(data)


def test_another_type_than_promised_is_refused() -> None:
    with pytest.raises(Invalid, match="promised"):
        parse_manifest(encode(image()), DOCKER_MANIFEST)
    with pytest.raises(Invalid, match="not the type"):
        parse_manifest(encode(image(mediaType=...)), OCI_INDEX)
    with pytest.raises(Invalid, match="not the type"):
        parse_manifest(encode(image(mediaType=...)), LAYER)
    with pytest.raises(Invalid, match="schema 1"):
        parse_manifest(
            encode(image(mediaType=...)), "application/vnd.docker.distribution.manifest.v1+json"
        )


def test_size_is_bounded_before_anything_is_read() -> None:
    data = encode(image())
    assert parse_manifest(data.ljust(MAX_MANIFEST_BYTES)).media_type == OCI_MANIFEST
    with pytest.raises(Invalid, match=str(MAX_MANIFEST_BYTES)):
        parse_manifest(data.ljust(MAX_MANIFEST_BYTES + 1))


def test_null_means_absent_where_go_writes_it() -> None:
    manifest = parse_manifest(encode(image(annotations=None, subject=None, artifactType="")))
    assert (manifest.annotations, manifest.subject, manifest.artifact_type) == ({}, None, "")


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, Platform("linux", "arm", "v7")),
        ({"os": "linux", "architecture": "amd64", "os.version": "1"}, Platform("linux", "amd64")),
        ({"os": "unknown", "architecture": "unknown"}, Platform("unknown", "unknown")),
        ({"architecture": "amd64", "variant": "v8"}, None),
        ({"os": "a/b", "architecture": "c"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_platforms_of_children(platform: object, expected: Platform | None) -> None:
    manifest = parse_manifest(
        encode(index(manifests=[descriptor(OCI_MANIFEST, platform=platform)]))
    )
    assert isinstance(manifest, Index)
    assert manifest.manifests[0].platform == expected


def test_urls_and_embedded_data_are_ignored() -> None:
    layer = descriptor(urls=["https://evil.example/layer"], data="eA==")
    assert parse_manifest(encode(image(layers=[layer]))) == parse_manifest(encode(image()))


def test_the_four_types_are_two_and_two() -> None:
    assert set(MANIFEST_MEDIA_TYPES) == INDEX_MEDIA_TYPES | IMAGE_MEDIA_TYPES
    assert len(MANIFEST_MEDIA_TYPES) == 4
    assert all(map(is_manifest_type, MANIFEST_MEDIA_TYPES))
    assert not is_manifest_type(LAYER)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
keys = st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "subject"])


@given(
    st.sampled_from([image(), index()]),
    st.dictionaries(keys, json_values | st.just([descriptor()]) | st.just(descriptor())),
    st.none() | st.sampled_from(MANIFEST_MEDIA_TYPES) | st.text(max_size=5),
)
def test_no_document_raises_anything_but_invalid(
    document: dict[str, Any], changes: dict[str, Any], promised: str | None
) -> None:
    try:
        manifest = parse_manifest(encode(document | changes), promised)
    except Invalid:
        return
    assert manifest.media_type in MANIFEST_MEDIA_TYPES


@given(st.binary(max_size=80))
@example(b'"\\ud800"')
def test_no_bytes_raise_anything_but_invalid(data: bytes) -> None:
    with pytest.raises(Invalid):
        parse_manifest(data)
