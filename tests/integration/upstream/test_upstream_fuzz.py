"""Made-up answers of a registry to the real client over a socket: our own errors, soon, and no bytes believed."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facade.errors import FacadeError, Integrity, Invalid, Upstream
from facade.oci.digest import Digest
from facade.oci.manifest import MANIFEST_MEDIA_TYPES, parse_manifest
from facade.upstream.client import RegistryClient
from tests.support.background_loop import BackgroundLoop, background_loop
from tests.support.misbehaviour import Misbehaviour
from tests.support.raw_http import Data, Reply, Seen
from tests.support.registry import Registry
from tests.support.upstream_client import APP, registry_client

SECONDS = 10.0
FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
FIELD_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=80)


@dataclass(frozen=True)
class Peer:
    """A registry, and a client that speaks to it."""

    loop: BackgroundLoop
    registry: Registry
    client: RegistryClient

    def with_answer(self, change: Misbehaviour) -> None:
        """From now on every answer is changed so."""
        self.registry.behave()
        self.registry.script("*", change)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Peer]:
    with background_loop() as loop:
        registry = loop.enter(Registry)
        yield Peer(loop, registry, loop.enter(registry_client))


CHALLENGES = st.lists(
    st.one_of(
        FIELD_TEXT,
        st.sampled_from(
            ["Basic", 'Bearer realm="http://127.0.0.1:1/t"', "Bearer", "Negotiate a==", '"']
        ),
        st.tuples(st.sampled_from(["Bearer", "Basic", "Digest", "bEARER"]), FIELD_TEXT).map(
            lambda parts: f'{parts[0]} realm="{parts[1]}",service="s"'
        ),
    ),
    max_size=4,
)


@FUZZ
@given(challenges=CHALLENGES, code=st.sampled_from([401, 403, 407]))
def test_www_authenticate(upstream: Peer, challenges: list[str], code: int) -> None:
    fields = tuple(("WWW-Authenticate", challenge) for challenge in challenges)
    upstream.with_answer(lambda seen, reply: Reply(code, fields, Data(b"{}")))

    async def ping() -> None:
        async with asyncio.timeout(SECONDS):
            with pytest.raises(FacadeError):
                await upstream.client.ping(upstream.registry.connection())

    upstream.loop.run(ping())


TARGETS = st.one_of(
    FIELD_TEXT,
    st.sampled_from(
        [
            "/v2/org/app/tags/list?last=b",
            "//evil.example/x",
            "http://127.0.0.1:1/",
            "?last=b",
            "",
            "//",
        ]
    ),
)
LINKS = st.lists(
    st.one_of(
        FIELD_TEXT,
        TARGETS.map(lambda target: f'<{target}>; rel="next"'),
        TARGETS.map(lambda target: f"<{target}>;rel=next,<{target}>; rel=prev"),
    ),
    max_size=3,
)


@FUZZ
@given(links=LINKS)
def test_link(upstream: Peer, links: list[str]) -> None:
    """Followed on the registry's own origin alone, and not for ever."""
    upstream.registry.requests.clear()
    body = Data(b'{"name":"org/app","tags":["a"]}')
    fields = tuple(("Link", link) for link in links)
    upstream.with_answer(lambda seen, reply: Reply(200, fields, body))

    async def list_tags() -> int:
        pages = 0
        async with asyncio.timeout(SECONDS):
            tags = upstream.client.tags(
                upstream.registry.connection(), APP, max_pages=5, max_seconds=5
            )
            try:
                async for _page in tags:
                    pages += 1
            except Upstream:
                pass
        return pages

    assert upstream.loop.run(list_tags()) <= 5
    assert 1 <= len(upstream.registry.requests) <= 6


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
DESCRIPTOR = st.fixed_dictionaries(
    {},
    optional={
        "mediaType": st.sampled_from(MANIFEST_MEDIA_TYPES) | JSON,
        "digest": st.sampled_from(["sha256:" + "a" * 64, "sha256:x", "md5:" + "a" * 32]) | JSON,
        "size": st.integers(-5, 2**70) | JSON,
        "platform": JSON,
        "annotations": JSON,
        "urls": JSON,
    },
)
MANIFESTS: st.SearchStrategy[Any] = (
    st.fixed_dictionaries(
        {},
        optional={
            "schemaVersion": st.sampled_from([1, 2, 3]) | JSON,
            "mediaType": st.sampled_from(MANIFEST_MEDIA_TYPES) | JSON,
            "config": DESCRIPTOR | JSON,
            "layers": st.lists(DESCRIPTOR, max_size=3) | JSON,
            "manifests": st.lists(DESCRIPTOR, max_size=3) | JSON,
            "subject": DESCRIPTOR | JSON,
            "artifactType": JSON,
        },
    )
    | JSON
)


@FUZZ
@given(
    document=MANIFESTS,
    media_type=st.sampled_from(MANIFEST_MEDIA_TYPES) | FIELD_TEXT,
    claimed=st.none() | FIELD_TEXT | st.just("sha256:" + "a" * 64),
    encoding=st.sampled_from([None, None, "gzip", "br"]),
)
def test_manifests(
    upstream: Peer, document: Any, media_type: str, claimed: str | None, encoding: str | None
) -> None:
    """Fetched by digest they are those bytes, whatever the fields say; and parsing says Invalid at worst."""
    data = json.dumps(document).encode()
    digest = Digest.of(data)

    def change(seen: Seen, reply: Reply) -> Reply:
        answer = Reply(200, (("Content-Type", media_type),), Data(data))
        answer = answer.with_header("Docker-Content-Digest", claimed)
        return answer.with_header("Content-Encoding", encoding)

    upstream.with_answer(change)

    async def fetch() -> bytes | None:
        async with asyncio.timeout(SECONDS):
            try:
                fetched = await upstream.client.manifest(
                    upstream.registry.connection(), APP, digest
                )
            except (Upstream, Integrity):
                return None
            return fetched.data

    got = upstream.loop.run(fetch())
    if got is None:
        return
    assert got == data
    try:
        parse_manifest(got)
    except Invalid as error:
        assert error.message


@FUZZ
@given(
    raw=st.binary(max_size=300)
    | st.binary(max_size=200).map(lambda data: b"HTTP/1.1 200 OK\r\n" + data)
)
def test_answers_that_are_hardly_http(upstream: Peer, raw: bytes) -> None:
    upstream.with_answer(lambda seen, reply: replace(reply, raw=raw))
    digest = Digest.of(b"never sent")

    async def fetch() -> None:
        async with asyncio.timeout(SECONDS):
            with pytest.raises(FacadeError):
                await upstream.client.manifest(upstream.registry.connection(), APP, digest)

    upstream.loop.run(fetch())
