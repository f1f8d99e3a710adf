"""Repository names and tags."""

import pytest
from hypothesis import given

from facade.errors import Invalid
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from tests.support.oci_values import odd_text, repositories


@given(repositories)
def test_parse_of_format_is_the_identity(repository: Repository) -> None:
    assert Repository.parse(str(repository)) == repository


@pytest.mark.parametrize("kind", [Repository, Tag])
@given(text=odd_text)
def test_no_text_raises_anything_but_invalid(kind: type[Repository | Tag], text: str) -> None:
    try:
        value = kind.parse(text)
    except Invalid as error:
        assert error.reason is Reason.NAME_INVALID
    else:
        assert str(value) == text
        assert ".." not in text or kind is Tag
        assert "/" not in text or kind is Repository


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/app",
        "app/",
        "org//app",
        "org/../app",
        ".",
        "..",
        "a..b",
        "a___b",
        "-a",
        "a-",
        "App",
        "a b",
        "app\n",
        "app%2f",
        "a:b",
        "ä",
        "a" * 256,
    ],
)
def test_what_is_no_repository(text: str) -> None:
    with pytest.raises(Invalid):
        Repository.parse(text)


@pytest.mark.parametrize("text", ["a", "a__b", "a---b", "a.b_c/d-e", "a" * 255])
def test_what_is_a_repository(text: str) -> None:
    assert Repository.parse(text).name == text


def test_last_component() -> None:
    assert Repository.parse("org/team/app").last_component == "app"
    assert Repository.parse("app").last_component == "app"


@pytest.mark.parametrize("text", ["", ".a", "-a", "a/b", "a:b", "a" * 129, "latest\n", "v1+b"])
def test_what_is_no_tag(text: str) -> None:
    with pytest.raises(Invalid):
        Tag.parse(text)


@pytest.mark.parametrize("text", ["latest", "_x", "V1.2.3-rc.1", "a" * 128, "1..2"])
def test_what_is_a_tag(text: str) -> None:
    assert Tag.parse(text).name == text
