"""An upstream tries to use up our memory or our time."""

import gzip
import time

import pytest

from facade.clock import SystemClock
from facade.errors import Upstream
from facade.oci.reference import Tag
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Scope
from facade.upstream.listing import MAX_PAGE_BYTES
from facade.upstream.retry import Timeouts
from tests.support.clock import FakeClock
from tests.support.image import small_image
from tests.support.misbehaviour import (
    chain,
    header,
    longer_by,
    rate_limited,
    stall,
    status,
    trickle,
    without_length,
    wrong_bytes,
)
from tests.support.registry import Registry
from tests.support.token_server import TokenServer
from tests.support.upstream_client import APP, read_blob, registry_client, token_client

HUGE = 1 << 30


async def test_decompression_bomb() -> None:
    bomb = gzip.compress(bytes(16 << 20))
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob(str(APP), b"x")
        registry.script("*", chain(wrong_bytes(bomb), header("Content-Encoding", "gzip")))
        assert await read_blob(client, registry.connection(), digest) == bomb


async def test_endless_error_body() -> None:
    async with Registry() as registry, registry_client() as client:
        endless = chain(status(403, b"no"), longer_by(HUGE), without_length())
        registry.script("*", endless)
        with pytest.raises(Upstream, match="refused GET"):
            await client.ping(registry.connection())


async def test_error_body_that_never_ends() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.script("*", chain(status(403, b"its words" * 100), stall(9)))
        started = time.monotonic()
        with pytest.raises(Upstream, match="its words"):
            await client.ping(registry.connection())
        assert time.monotonic() - started < 5


async def test_endless_tag_page() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), small_image(), "v1")
        registry.script("*", chain(longer_by(MAX_PAGE_BYTES), without_length()))
        with pytest.raises(Upstream, match="more than"):
            _ = [page async for page in client.tags(registry.connection(), APP)]


@pytest.mark.slow
async def test_a_page_of_a_million_words_that_are_no_tags() -> None:
    """Reading it took the event loop two seconds, a hundred times in a row."""
    words = b'{"tags":[' + b'"",' * 1_390_000 + b'""]}'
    async with Registry() as registry, registry_client() as client:
        registry.add_image(str(APP), small_image(), "v1")
        registry.script("*", wrong_bytes(words))
        before = time.thread_time()
        assert [page async for page in client.tags(registry.connection(), APP)] == [[]]
        assert time.thread_time() - before < 1.0


async def test_endless_pages() -> None:
    async with Registry(page_size=1) as registry, registry_client() as client:
        digest = registry.add_image(str(APP), small_image())
        for number in range(30):
            registry.tag(str(APP), f"v{number:02}", digest)
        pages = [page async for page in client.tags(registry.connection(), APP, max_pages=5)]
        assert len(pages) == 5
        assert registry.count() == 5


async def test_endless_token_answer() -> None:
    async with Registry() as registry, token_client() as exchange:
        registry.script("/token", status(200, b"{" + b" " * 70_000))
        challenge = Challenge("bearer", {"realm": f"{registry.url}/token"})
        with pytest.raises(Upstream, match="more than 65536 bytes"):
            await exchange.exchange(registry.connection(), challenge, Scope(APP), None)


async def test_rate_limit_for_a_century() -> None:
    clock = FakeClock(auto=True)
    async with Registry() as registry, registry_client(clock=clock) as client:
        registry.script("*", rate_limited("3155760000"))
        with pytest.raises(Upstream) as caught:
            await client.ping(registry.connection())
        assert clock.slept == []
        assert caught.value.retry_after == 24 * 3600


async def test_token_service_that_is_always_busy() -> None:
    async with TokenServer() as tokens, Registry() as registry, token_client() as exchange:
        tokens.manner.status = 503
        challenge = Challenge("bearer", {"realm": tokens.realm})
        with pytest.raises(Upstream, match=r"bad mood") as caught:
            await exchange.exchange(registry.connection(), challenge, Scope(APP), None)
        assert caught.value.status == 503
        assert len(tokens.requests) == 3


async def test_slow_drip_manifest() -> None:
    timeouts = Timeouts(small_body=0.2)
    async with Registry() as registry, registry_client(timeouts=timeouts) as client:
        registry.add_image(str(APP), small_image(), "v1")
        registry.script("*/manifests/*", trickle(1, 0.01))
        with pytest.raises(Upstream, match="did not finish"):
            await client.manifest(registry.connection(), APP, Tag("v1"))


async def test_hundreds_of_header_fields() -> None:
    async with Registry() as registry, registry_client() as client:
        many = chain(*(header(f"X-{number}", "x") for number in range(500)))
        registry.script("*", many)
        with pytest.raises(Upstream, match="no proper HTTP"):
            await client.ping(registry.connection())
