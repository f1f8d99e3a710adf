"""The WWW-Authenticate grammar, as real registries write it and as nobody should."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.upstream.challenge import MAX_CHALLENGES, MAX_HEADER_CHARS, Challenge, parse_challenges


def _b(**parameters: str) -> Challenge:
    return Challenge("bearer", parameters)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="Registry"', [Challenge("basic", {"realm": "Registry"})]),
        ("BASIC", [Challenge("basic")]),
        ("Basic realm=Plain", [Challenge("basic", {"realm": "Plain"})]),
        ('Bearer Realm = "https://a/t" , SERVICE="s"', [_b(realm="https://a/t", service="s")]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull,push"',
            [
                _b(
                    realm="https://auth.docker.io/token",
                    service="registry.docker.io",
                    scope="repository:library/alpine:pull,push",
                )
            ],
        ),
        (
            'Bearer realm="https://a/t",error="invalid_token", Basic realm="x, y"',
            [_b(realm="https://a/t", error="invalid_token"), Challenge("basic", {"realm": "x, y"})],
        ),
        (
            'Negotiate abc==, Basic realm="z"',
            [Challenge("negotiate"), Challenge("basic", {"realm": "z"})],
        ),
        (
            'Negotiate, NTLM, Bearer realm="r"',
            [Challenge("negotiate"), Challenge("ntlm"), _b(realm="r")],
        ),
        (r'Bearer realm="a\"b\\c"', [_b(realm='a"b\\c')]),
        ('Bearer realm="first",realm="second"', [_b(realm="first")]),
        ("Bearer realm=https://unquoted.example/token,service=s", [
            _b(realm="https://unquoted.example/token", service="s")
        ]),
        ('Bearer realm="never ends', [_b(realm="never ends")]),
        (',, ,Bearer  realm="r" ,,', [_b(realm="r")]),
        ('realm="no scheme"', []),
        ("", []),
        ('"', []),
    ],
)  # fmt: skip
def test_reads(header: str, expected: list[Challenge]) -> None:
    assert parse_challenges([header]) == tuple(expected)


def test_several_fields_are_one_list() -> None:
    found = parse_challenges(['Basic realm="a"', 'Bearer realm="b"'])
    assert [challenge.scheme for challenge in found] == ["basic", "bearer"]


def test_more_challenges_than_anybody_needs_are_left_out() -> None:
    assert len(parse_challenges(["Basic, " * 50])) == MAX_CHALLENGES


@given(st.lists(st.text(), max_size=4))
def test_any_text_is_survived(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,9}", fullmatch=True),
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_-]{0,9}", fullmatch=True),
        st.text(st.characters(codec="latin-1", exclude_characters="\x00\r\n")),
        min_size=1,
        max_size=4,
    ),
)
def test_what_is_quoted_comes_back(scheme: str, parameters: dict[str, str]) -> None:
    quoted = (
        '{}="{}"'.format(name, value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in parameters.items()
    )
    expected = (Challenge(scheme.lower(), parameters),)
    assert parse_challenges([f"{scheme} {', '.join(quoted)}"]) == expected


@pytest.mark.parametrize("nasty", ['a="\\', '"', 'Basic a="\\"', "a=", ", \t", "Basic " + "A" * 9])
def test_hostile_headers_take_no_time(nasty: str) -> None:
    started = time.thread_time()
    parse_challenges([nasty * (MAX_HEADER_CHARS // len(nasty))] * 4)
    assert time.thread_time() - started < 0.5
