"""Signed targets: what the signer writes is exactly what the verifier reads."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import FacadeError, Invalid
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.target import (
    MAX_MANIFEST_BYTES,
    SignedTarget,
    parse_artifact_path,
    parse_version,
)
from tests.support.oci_values import digests, hosts, odd_text, repositories

DIGEST = Digest.of(b"manifest")
MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
versions = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,20}", fullmatch=True).filter(
    lambda text: ".." not in text
)
targets = st.builds(
    SignedTarget,
    fleet=st.sampled_from(["dev", "a.b", "0"]),
    name=st.sampled_from(["app", "x_y", "1.2"]),
    version=versions,
    digest=st.binary(max_size=4).map(Digest.of),
    length=st.integers(1, MAX_MANIFEST_BYTES),
    registry=hosts,
    repository=repositories,
    media_type=st.just(MEDIA_TYPE),
    reference=st.sampled_from(["", "v1"]),
    platforms=st.sampled_from([(), ("linux/arm64", "linux/arm/v7")]),
    referrers=st.lists(digests, max_size=2).map(tuple),
)


def parse(
    path: str = "dev/app/v1",
    *,
    length: int = 7,
    hashes: dict[str, str] | None = None,
    drop: str = "",
    **oci: object,
) -> SignedTarget:
    whole: dict[str, Any] = {
        "registry": "ghcr.io",
        "repository": "org/app",
        "mediaType": MEDIA_TYPE,
        **oci,
    }
    whole.pop(drop, None)
    hashes = {"sha256": DIGEST.hex} if hashes is None else hashes
    return SignedTarget.parse(path, length=length, hashes=hashes, custom={"oci": whole})


@given(targets)
def test_parse_of_format_is_the_identity(target: SignedTarget) -> None:
    again = SignedTarget.parse(
        target.path,
        length=target.length,
        hashes={"sha256": target.digest.hex},
        custom=target.custom,
    )
    assert again == target


json_values = st.recursive(
    st.none() | st.integers() | odd_text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@given(
    st.sampled_from(["dev/app/v1", "dev/app"]) | odd_text,
    st.integers(-1, 10),
    st.dictionaries(
        st.sampled_from(["registry", "repository", "mediaType", "reference", "platforms"]),
        json_values,
    ),
)
def test_nothing_raises_anything_but_invalid(path: str, length: int, oci: dict[str, Any]) -> None:
    try:
        target = parse(path, length=length, **oci)
    except FacadeError as error:
        assert isinstance(error, Invalid)
    else:
        assert target.path == path


def test_a_plain_one() -> None:
    target = parse(reference="v1", platforms=["linux/arm64"], referrers=[str(DIGEST)], extra="x")
    assert target.path == "dev/app/v1"
    assert target.registry == RegistryHost("ghcr.io")
    assert target.digest == DIGEST
    assert target.referrers == (DIGEST,)
    assert "extra" not in target.custom["oci"]


@pytest.mark.parametrize(
    "change",
    [
        {"path": "app/v1"},
        {"path": "dev/app/v1/x"},
        {"path": "dev//v1"},
        {"path": "dev/../v1"},
        {"path": "dev/app/.."},
        {"path": "dev/app/a..b"},
        {"path": "root/app/v1"},
        {"path": "/app/v1"},
        {"length": 0},
        {"length": -1},
        {"length": MAX_MANIFEST_BYTES + 1},
        {"hashes": {}},
        {"hashes": {"sha512": "0" * 128}},
        {"hashes": {"sha256": "0" * 63}},
        {"registry": "GHCR.io"},
        {"registry": "https://ghcr.io"},
        {"registry": "index.docker.io"},
        {"registry": ""},
        {"registry": 7},
        {"drop": "registry"},
        {"repository": "org/../app"},
        {"drop": "repository"},
        {"drop": "mediaType"},
        {"mediaType": "x" * 256},
        {"mediaType": "index"},
        {"mediaType": "x/y\r\nSet-Cookie: a=b"},
        {"reference": ""},
        {"platforms": "linux/arm64"},
        {"platforms": ["linux"]},
        {"platforms": [1]},
        {"platforms": ["linux/" + "a" * 65]},
        {"referrers": ["latest"]},
    ],
    ids=str,
)
def test_malformed_targets_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse(**change)


@pytest.mark.parametrize("custom", [None, {}, {"oci": None}, {"oci": []}, {"oci": "x"}])
def test_without_custom_there_is_no_target(custom: dict[str, Any] | None) -> None:
    with pytest.raises(Invalid, match="custom"):
        SignedTarget.parse("dev/app/v1", length=1, hashes={"sha256": DIGEST.hex}, custom=custom)


@pytest.mark.parametrize("text", ["", "-1", "+1", ".1", "a/b", "a b", "v1\n", "a..b", "v" * 129])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(Invalid):
        parse_version(text)


def test_artifact_paths() -> None:
    assert parse_artifact_path("dev/app/v1.2+b") == ("dev", "app", "v1.2+b")
    with pytest.raises(Invalid, match="FLEET/NAME/VERSION"):
        parse_artifact_path("dev/app")
