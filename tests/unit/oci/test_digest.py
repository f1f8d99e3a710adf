"""Digests: one spelling each, nothing else accepted."""

import hashlib

import pytest
from hypothesis import example, given

from facade.errors import Invalid
from facade.oci.digest import Digest
from facade.reasons import Reason
from tests.support.oci_values import digests, odd_text

HEX = hashlib.sha256(b"x").hexdigest()


@given(digests)
def test_parse_of_format_is_the_identity(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(odd_text)
@example("sha256:" + "a" * 63 + "\n")
def test_no_text_raises_anything_but_invalid(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except Invalid as error:
        assert error.reason is Reason.DIGEST_INVALID
    else:
        assert str(digest) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha256:{HEX}0",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX[:-1]}g",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha512:{HEX}",
        f"sha384:{hashlib.sha384(b'x').hexdigest()}",
        f"md5:{'0' * 32}",
        "sha256:" + "\u0661" * 64,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        Digest.parse(text)
    assert caught.value.reason is Reason.DIGEST_INVALID


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_of_hashes_and_matches_tells_content_apart(algorithm: str) -> None:
    digest = Digest.of(b"content", algorithm)
    hasher = digest.hasher()
    hasher.update(b"content")
    assert digest.hex == hasher.hexdigest()
    assert digest.matches(b"content")
    assert not digest.matches(b"contenT")


def test_an_algorithm_that_is_not_registered_is_not_computed() -> None:
    with pytest.raises(KeyError):
        Digest.of(b"", "md5")
