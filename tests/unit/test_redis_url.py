"""The forms of `[redis] url`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.config.redis_url import RedisKind, RedisUrl, parse_redis_url
from facade.secret import Secret


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://h", RedisUrl(RedisKind.SINGLE, False, (("h", 6379),))),
        ("redis://h/", RedisUrl(RedisKind.SINGLE, False, (("h", 6379),))),
        (
            "rediss://me:p%40ss%2F@h:1/3?ca_file=/etc/ca.pem",
            RedisUrl(
                *(RedisKind.SINGLE, True, (("h", 1),), "me", Secret("p@ss/"), 3, "", "/etc/ca.pem")
            ),
        ),
        (
            "redis://:pw@[::1]:7000",
            RedisUrl(RedisKind.SINGLE, False, (("::1", 7000),), None, Secret("pw")),
        ),
        (
            "redis+cluster://a:1,b",
            RedisUrl(RedisKind.CLUSTER, False, (("a", 1), ("b", 6379))),
        ),
        (
            "rediss+sentinel://a,b:2/main/1?sentinel_password=x%2By",
            RedisUrl(
                *(RedisKind.SENTINEL, True, (("a", 26379), ("b", 2)), None, None, 1, "main"),
                sentinel_password=Secret("x+y"),
            ),
        ),
    ],
)
def test_understood(text: str, expected: RedisUrl) -> None:
    assert parse_redis_url(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h:6379",
        "http://h",
        "redis+other://h",
        "redis://",
        "redis://h:0",
        "redis://h:99999",
        "redis://h:x",
        "redis://h/x",
        "redis://a b",
        "redis+cluster://h/1",
        "redis+sentinel://h",
        "redis://u:canary@h:x",
        "redis://u:canary@h?secret=canary",
        "redis://[::1",
    ],
)
def test_refused_in_words_without_the_url(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_redis_url(text)
    assert "canary" not in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_survived(text: str) -> None:
    try:
        parse_redis_url(f"redis://{text}")
    except ValueError as error:
        assert type(error) is ValueError


@pytest.mark.parametrize(
    "text",
    [
        "redis://me:canary@h:1/3",
        "rediss+sentinel://:canary@a:1,[::1]:2/main/1?sentinel_password=canary",
    ],
)
def test_no_text_of_it_shows_a_password(text: str) -> None:
    url = parse_redis_url(text)
    assert "canary" not in f"{url} {url!r}"
    assert parse_redis_url(str(url)).hosts == url.hosts
