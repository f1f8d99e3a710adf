"""Where redirects may lead, and with what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.redirects import MAX_REDIRECTS, Hop, follow, resolve, same_origin

REGISTRY = URL("https://registry.example/v2/org/app/blobs/sha256:aa")


def step(location: str | None, hop: Hop | None = None, *, insecure: bool = False) -> Hop:
    return follow(hop or Hop(REGISTRY), location, registry=REGISTRY, insecure=insecure)


@pytest.mark.parametrize(
    ("location", "trusted"),
    [
        ("/v2/org/app/blobs/sha256:bb", True),
        ("https://registry.example/other", True),
        ("https://registry.example:443/other", True),
        ("https://REGISTRY.example/other", True),
        ("//registry.example/x", True),
        ("https://registry.example:8443/other", False),
        ("https://cdn.registry.example/x", False),
        ("https://registry.example.evil.test/x", False),
        ("https://storage.test/x?X-Amz-Signature=abc%2Fdef", False),
        ("//evil.test/x", False),
    ],
)
def test_authorization_stays_on_the_origin(location: str, *, trusted: bool) -> None:
    assert step(location).trusted is trusted


def test_what_has_left_does_not_come_back() -> None:
    away = step("https://storage.test/x")
    back = step(str(REGISTRY), away)
    assert same_origin(back.url, REGISTRY)
    assert not back.trusted


def test_presigned_urls_are_kept_byte_for_byte() -> None:
    location = "https://s3.test/a%2Fb%20c+d?X-Amz-Credential=AK%2F2025&sig=a%2Bb%3D%3D&x=~'()"
    assert str(step(location).url) == location


@pytest.mark.parametrize(
    "location",
    [
        *(
            None,
            "",
            "ftp://x/y",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://",
            "https:///x",
        ),
        *("https://user:pw@registry.example/x", "https://user@evil.test/", "https://a b/"),
        *("https://evil.test\\@registry.example/", "https://x/\r\nHost: y", "https://[::1/x"),
        *("https://x:99999/", "https://x:port/", "http://registry.example/x", "https://é.test/"),
        "https://x/" + "a" * 9000,
    ],
)
def test_refused_locations(location: str | None) -> None:
    with pytest.raises(Upstream) as caught:
        step(location)
    assert caught.value.reason is Reason.UPSTREAM_REFUSED
    assert caught.value.message.startswith("registry.example cannot be used")
    assert "pw" not in caught.value.message


def test_plain_http_needs_an_insecure_connection() -> None:
    hop = step("http://registry.example/x", insecure=True)
    assert not hop.trusted  # another scheme is another origin


def test_a_loop_ends() -> None:
    hop = Hop(REGISTRY)
    for _ in range(MAX_REDIRECTS):
        hop = step(str(REGISTRY), hop)
    with pytest.raises(Upstream, match="more than 5 times"):
        step(str(REGISTRY), hop)


@given(st.text())
def test_any_location_is_judged(location: str) -> None:
    url = resolve(REGISTRY, location)
    assert url is None or (url.scheme in ("http", "https") and url.host)
