"""Edges come from verified bytes, by where a descriptor stands."""

import json
from typing import Any

import pytest

from facade.errors import Integrity, Invalid
from facade.oci.digest import Digest
from facade.oci.manifest import MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST, parse_manifest
from facade.oci.platform import Platform
from facade.oci.request import Role
from facade.serving.trust.closure import (
    Allowed,
    edges,
    platforms_of,
    servable,
    verified_manifest,
)
from tests.support.tuf_repo import signed_target

_PARENT = Digest.of(b"parent")


def _child(name: str, platform: str | None, media_type: str = OCI_MANIFEST) -> dict[str, Any]:
    child: dict[str, Any] = {
        "mediaType": media_type,
        "digest": str(Digest.of(name.encode())),
        "size": 9,
    }
    if platform is not None:
        os, architecture, *variant = platform.split("/")
        child["platform"] = {"os": os, "architecture": architecture}
        if variant:
            child["platform"]["variant"] = variant[0]
    return child


def _index(*children: dict[str, Any]) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(children)}
    ).encode()


def _image(**more: Any) -> bytes:
    blob = {"digest": str(Digest.of(b"blob")), "size": 4}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {**blob, "mediaType": "application/vnd.oci.image.config.v1+json"},
            "layers": [{**blob, "mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"layer"))}],
            **more,
        }
    ).encode()


def _reached(data: bytes, *platforms: str) -> dict[Digest, Role]:
    wanted = tuple(map(Platform.parse, platforms))
    return {edge.digest: edge.role for edge in edges(_PARENT, parse_manifest(data), wanted)}


def test_an_index_reaches_manifests_and_opaque_blobs() -> None:
    data = _index(_child("a", None), _child("b", None, "application/vnd.example+json"))
    assert _reached(data) == {Digest.of(b"a"): Role.MANIFEST, Digest.of(b"b"): Role.BLOB}


def test_a_layer_is_a_blob_whatever_it_calls_itself() -> None:
    assert _reached(_image()) == {Digest.of(b"blob"): Role.BLOB, Digest.of(b"layer"): Role.BLOB}


def test_a_subject_is_not_followed() -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"subject")), "size": 1}
    assert Digest.of(b"subject") not in _reached(_image(subject=subject))


def test_platforms_leave_out_other_children() -> None:
    data = _index(
        _child("amd64", "linux/amd64"),
        _child("arm64", "linux/arm64/v8"),
        _child("none", None),
        _child("attestation", "unknown/unknown"),
    )
    assert set(_reached(data, "linux/arm64")) == {Digest.of(b"arm64")}
    assert len(_reached(data, "linux/arm64", "linux/amd64")) == 2
    assert len(_reached(data)) == 4


def test_a_child_that_is_too_large_for_a_manifest_is_left_out() -> None:
    child = {**_child("huge", None), "size": MAX_MANIFEST_BYTES + 1}
    assert _reached(_index(child)) == {}


def test_the_bytes_have_to_be_the_ones() -> None:
    data = _image()
    verified = verified_manifest(data, Digest.of(data), len(data), OCI_MANIFEST)
    assert verified == parse_manifest(data)
    with pytest.raises(Integrity):
        verified_manifest(data + b" ", Digest.of(data), None, "")
    with pytest.raises(Invalid, match="bytes"):
        verified_manifest(data, Digest.of(data), len(data) + 1, "")
    with pytest.raises(Invalid, match="promised"):
        verified_manifest(data, Digest.of(data), None, OCI_INDEX)


def test_what_may_be_sent_is_checked_against_the_decision() -> None:
    data = _image()
    target = signed_target("dev/app/v1", data, platforms=["linux/arm64"])
    assert platforms_of(target) == (Platform.parse("linux/arm64"),)
    good = Allowed(Digest.of(data), len(data), OCI_MANIFEST, Role.MANIFEST, target, (len(data),))
    assert servable(data, good) == parse_manifest(data)
    for bad in (
        Allowed(good.digest, good.size + 1, OCI_MANIFEST, good.role, target, ()),
        Allowed(good.digest, good.size, OCI_INDEX, good.role, target, ()),
    ):
        with pytest.raises(Integrity):
            servable(data, bad)
