"""Harnesses for what a registry or token service says: manifests, challenges, links, redirects, tokens, words."""

import json

from multidict import CIMultiDict
from yarl import URL

from facade.control.catalog.image_config import platform_of
from facade.control.catalog.ordering import order_tags
from facade.errors import FacadeError, Invalid
from facade.observability.redaction import MAX_TEXT_CHARS, redact, scrub
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import MANIFEST_MEDIA_TYPES, OCI_INDEX, OCI_MANIFEST, parse_manifest
from facade.oci.platform import Platform
from facade.oci.reference import Repository, Tag
from facade.serving.trust.closure import edges, verified_manifest
from facade.upstream.addresses import AddressPolicy, unfold
from facade.upstream.budget import Budget, announced
from facade.upstream.challenge import MAX_CHALLENGES, parse_challenges
from facade.upstream.connection import Connection, Scope
from facade.upstream.fetched import check_manifest
from facade.upstream.links import next_page
from facade.upstream.listing import read_tags
from facade.upstream.redirects import Hop, follow, same_origin
from facade.upstream.retry import MAX_RETRY_AFTER_SECONDS, parse_retry_after
from facade.upstream.scope import token_scope
from facade.upstream.token import (
    MAX_LIFETIME_SECONDS,
    check_realm,
    parse_token_answer,
    token_requests,
)
from facade.upstream.words import MAX_WORDS_CHARS, registry_words
from tests.fuzz.harness import Harness, as_json, fields
from tests.support.manifests import PlainImage, descriptor, image_index, image_manifest

_HOST = RegistryHost.parse("registry.example")
_CONNECTION = Connection("c1", _HOST, "static")
_REPOSITORY = Repository.parse("org/app")
_REGISTRY = URL("https://registry.example/v2/org/app/tags/list")
_NOW = 1_700_000_000.0
_DAY_SECONDS = 24 * 3600.0
_SECRET = "hunter2-hunter2"


def manifest(data: bytes) -> None:
    """Whatever parses as a manifest grants edges that are well-formed."""
    for media_type in (None, *MANIFEST_MEDIA_TYPES):
        try:
            found = parse_manifest(data, media_type)
        except Invalid:
            continue
        digest = Digest.of(data)
        for platforms in ((), (Platform.parse("linux/arm64"),)):
            for edge in edges(digest, found, platforms):
                assert edge.parent == digest
                assert edge.size >= 0
        verified_manifest(data, digest, len(data), media_type or "")


def challenge(data: bytes) -> None:
    """Challenges, the scope that is asked for, and the realm that is told the password."""
    values = fields(data, 3)
    found = parse_challenges(values)
    assert len(found) <= MAX_CHALLENGES
    for one in found:
        asked = token_scope(one, Scope(_REPOSITORY))
        assert asked.split(":")[1:] == ["org/app", "pull"], asked
        try:
            check_realm(_CONNECTION, one.parameters.get("realm", ""))
            for sent in token_requests(_CONNECTION, one, Scope(_REPOSITORY), None):
                assert (sent.url.host or "").endswith("registry.example"), sent.url
        except FacadeError:
            continue


def link(data: bytes) -> None:
    """The next page is on the registry's own origin."""
    found = next_page(_REGISTRY, fields(data, 2))
    assert found is None or same_origin(found, _REGISTRY), found


def redirect(data: bytes) -> None:
    """Where a redirect leads: https only, and trusted on the registry's own origin only."""
    (location,) = fields(data, 1)
    hop = follow(Hop(_REGISTRY), location, registry=_REGISTRY, insecure=False)
    assert hop.url.scheme == "https"
    assert hop.url.host
    assert hop.trusted == same_origin(hop.url, _REGISTRY)
    assert hop.url.user is None


def token(data: bytes) -> None:
    """A token answer and its Date."""
    date, document = fields(data, 2)
    answer = parse_token_answer(
        document.encode("utf-8", "surrogateescape"), date=date or None, host="auth.example"
    )
    assert 0 <= answer.expires_in <= MAX_LIFETIME_SECONDS
    assert "\n" not in answer.header.reveal()


def retry_after(data: bytes) -> None:
    """Retry-After is bounded."""
    (value,) = fields(data, 1)
    seconds = parse_retry_after(value, _NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER_SECONDS


def rate_limits(data: bytes) -> None:
    """What an answer says of the budget: figures that are none are ignored, and nobody waits for ever."""
    names = ("RateLimit", "RateLimit-Policy", "RateLimit-Remaining", "RateLimit-Limit")
    values = fields(data, 5)
    given = zip((*names, "RateLimit-Reset"), values, strict=True)
    said = announced(CIMultiDict((name, value) for name, value in given if value), _NOW)
    if said is None:
        return
    assert said.remaining >= 0
    budget = Budget()
    budget.announce(said, 0.0)
    budget.spend(0.0)
    for under_way in (0, 1, 1000):
        assert 0 <= budget.wait(1.0, under_way) <= _DAY_SECONDS
    assert budget.wait(_DAY_SECONDS + 1.0, 0) == 0.0


def tag_list(data: bytes) -> None:
    """A page of tags: all that is taken is a tag, and can be put in an order."""
    try:
        page = read_tags(data)
    except ValueError:
        return
    assert set(order_tags(page)) == set(page)
    for tag in page:
        assert str(Tag.parse(tag)) == tag


def manifest_headers(data: bytes) -> None:
    """The headers of a manifest: what it claims to be, and to hash to."""
    content_type, claimed, body = fields(data, 3)
    content = body.encode("utf-8", "surrogateescape")
    headers = {"Content-Type": content_type, "Docker-Content-Digest": claimed}
    found = check_manifest(_CONNECTION, Digest.of(content), content, headers, "x")
    assert found.digest.matches(content)


def address(data: bytes) -> None:
    """Where a name leads to: what is inside is refused, in whatever form it is written."""
    (text,) = fields(data, 1)
    policy = AddressPolicy()
    reached = unfold(text)
    if policy.allows(text):
        assert reached is not None
        inside = (reached.is_private, reached.is_loopback, reached.is_link_local)
        assert not any(inside), reached
    policy.check(text, "registry.example")


def image_config(data: bytes) -> None:
    """An image's configuration states a platform, or nothing."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        found = platform_of(document)
        assert found is None or Platform.parse(str(found)) == found


def words(data: bytes) -> None:
    """An error body, as it is shown and logged."""
    said = registry_words(data, [_SECRET])
    assert len(said) <= MAX_WORDS_CHARS
    assert said.isprintable()
    assert _SECRET not in said
    (text,) = fields(data, 1)
    assert len(scrub(text)) <= MAX_TEXT_CHARS + 200
    line = redact(None, "info", {"error": text, "password": text, "host": text})
    assert line["password"] == "[redacted]"


def harnesses() -> list[Harness]:
    """All of them."""
    image = PlainImage("app")
    json_words = [b'{"', b'"}', b"null", b"1e999", b"-1", b"[[", b'":', b"\\ud800"]
    return [
        Harness(
            "manifest",
            manifest,
            [
                image.index,
                *image.manifests.values(),
                image_index([descriptor(b"x", OCI_MANIFEST, platform={"os": "linux"})]),
                image_manifest(b"{}", [], manifests=[]),
                as_json({"schemaVersion": 1}),
            ],
            [*json_words, OCI_INDEX.encode(), b'"layers":', b'"manifests":', b'"size":'],
            16384,
        ),
        Harness(
            "challenge",
            challenge,
            [
                b'Bearer realm="https://registry.example/token",service="r",scope="repository:org/app:pull"',
                b'Basic realm="x"\0Negotiate YWJj==\0Digest a=b, c="d\\"e"',
                b"Bearer realm=https://auth.registry.example:8443/t?x=1",
                b'Bearer realm="https://registry.example@evil.example/"',
            ],
            [b"Bearer ", b'realm="https://', b'scope="repository:', b", ", b'\\"'],
            2048,
        ),
        Harness(
            "link",
            link,
            [
                b'</v2/org/app/tags/list?last=b&n=100>; rel="next"',
                b"<https://evil.example/>; rel=next",
                b'<//registry.example:443/x>; title=a; rel="prev next"\0<x>;rel=next',
                b'<x>;rel="' + b" next" * 9,
            ],
            [b'; rel="next"', b"<https://", b"<//", b"%2e%2e", b"[::1]", b" next", b';rel="'],
            16384,
        ),
        Harness(
            "redirect",
            redirect,
            [
                b"https://cdn.example/x?sig=1",
                b"/v2/x",
                b"//registry.example/x",
                b"https:///x",
                b"x#y",
            ],
            [b"https://", b"http://", b"//", b"@", b":443", b"[::1]", b"\\"],
            1024,
        ),
        Harness(
            "token",
            token,
            [
                b"\0" + as_json({"token": "abc", "expires_in": 300}),
                b"Tue, 14 Nov 2023 22:13:20 GMT\0"
                + as_json({"access_token": "x.y-z", "issued_at": "2023-11-14T22:13:00Z"}),
                b"\0" + as_json({"token": "a", "expires_in": "60", "refresh_token": "r"}),
            ],
            [*json_words, b'"expires_in":', b'"issued_at":', b"0001-01-01T00:00:00+23:59"],
        ),
        Harness(
            "retry-after",
            retry_after,
            [
                b"5",
                b"Tue, 14 Nov 2023 22:13:25 GMT",
                b"-1",
                b"9" * 40,
                b"Fri, 31 Dec 9999 23:59:59 -9999",
            ],
            [b" GMT", b"Tue, ", b"9999", b"-0001"],
            128,
        ),
        Harness(
            "rate-limits",
            rate_limits,
            [
                b"\0\00076\000100;w=21600",
                b"limit=100, remaining=50, reset=50",
                b'"default";r=50;t=30, "day";r=5\0"default";q=100;w=60',
                b"\0\0000\000600, 600;w=60\0001700000050",
            ],
            [b";w=", b";r=", b";q=", b";t=", b"remaining=", b'"default"', b"9" * 15, b", "],
            4096,
        ),
        Harness(
            "tag-list",
            tag_list,
            [
                as_json({"name": "org/app", "tags": ["latest", "v1.2.0-rc.1", "2024-01-15"]}),
                as_json({"tags": None}),
            ],
            [*json_words, b'"tags":', b"sha256-", b"20240115", b"-rc1", b"9" * 18],
        ),
        Harness(
            "manifest-headers",
            manifest_headers,
            [
                f"{OCI_MANIFEST}; charset=utf-8\0{Digest.of(b'{}')}\0{{}}".encode(),
                f"\0 {Digest.of(b'x', 'sha512')} \0x".encode(),
            ],
            [b"sha256:", b"sha512:", b";"],
            1024,
        ),
        Harness(
            "address",
            address,
            [
                b"93.184.216.34",
                b"::ffff:10.0.0.1",
                b"[64:ff9b::7f00:1]",
                b"2002:a00:1::",
                b"fe80::1%eth0",
            ],
            [b"::ffff:", b"64:ff9b::", b"2002:", b"2001:0:", b"127.0.0.1", b"%", b"[", b"]"],
            64,
        ),
        Harness(
            "image-config",
            image_config,
            [as_json({"os": "linux", "architecture": "arm64", "variant": "v8"})],
            [*json_words, b'"os":', b'"architecture":', b'"variant":', b"/"],
        ),
        Harness(
            "words",
            words,
            [
                as_json({"errors": [{"code": "DENIED", "message": "no", "detail": {}}]}),
                as_json({"error": "invalid", "error_description": f"bad {_SECRET}"}),
                b"<html>",
                b"https://u:p@h/x?X-Amz-Signature=aaaa password: hunter22",
            ],
            [*json_words, b'"errors":', b"Bearer ", b"eyJ", b"-----BEGIN PRIVATE KEY-----", b"://"],
            65536,
        ),
    ]
