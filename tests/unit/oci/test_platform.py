"""Platforms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import Invalid
from facade.oci.platform import Platform
from tests.support.oci_values import odd_text


@given(st.from_regex(r"[a-z0-9_.-]{1,9}/[a-z0-9_.-]{1,9}(/[a-z0-9_.-]{1,9})?", fullmatch=True))
def test_parse_of_format_is_the_identity(text: str) -> None:
    platform = Platform.parse(text)
    assert Platform.parse(str(platform)) == platform


@given(odd_text)
def test_no_text_raises_anything_but_invalid(text: str) -> None:
    try:
        platform = Platform.parse(text)
    except Invalid:
        return
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/arm64", "a/b/c/d", "linux/arm64/", "A/b"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(Invalid, match="linux/arm64/v8"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("image", "wanted", "verdict"),
    [
        ("linux/arm64", "linux/arm64", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/aarch64", "linux/arm64", True),
        ("linux/x86_64", "linux/amd64", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm", "linux/arm/v6", False),
        ("linux/amd64", "linux/arm64", False),
        ("windows/amd64", "linux/amd64", False),
        ("linux/amd64", "linux/amd64/v3", False),
    ],
)
def test_matching(image: str, wanted: str, verdict: bool) -> None:
    assert Platform.parse(image).matches(Platform.parse(wanted)) is verdict
