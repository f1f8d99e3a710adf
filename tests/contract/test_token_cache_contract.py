"""What every `TokenCache` promises, in memory and through a real Redis."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.tokens import TokenCache, TokenKind
from tests.support.redis_server import redis_server
from tests.support.token_caches import KEY, redis_cache, token

CLOCK = SystemClock()


@pytest.fixture(params=["memory", "redis", "redis is down"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TokenCache]:
    if request.param == "memory":
        yield MemoryTokenCache(CLOCK)
    elif request.param == "redis":
        async with redis_server(tmp_path) as server, redis_cache(server.url) as cache:
            yield cache
    else:
        async with redis_cache("redis://127.0.0.1:1") as cache:
            yield cache


async def test_what_is_put_is_got(cache: TokenCache) -> None:
    assert await cache.get(KEY) is None
    await cache.put(KEY, token(CLOCK))
    assert await cache.get(KEY) == await cache.get(KEY)
    found = await cache.get(KEY)
    assert found is not None
    assert found.secret.reveal() == "canary-t1"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": TokenKind.CLOUD},
        {"connection_id": "c2"},
        {"revision": 2},
        {"origin": "https://other.example"},
        {"realm": "https://other.example/token"},
        {"service": "s"},
        {"repository": "b"},
        {"actions": ("pull",)},
        {"scope": "repository:b:pull"},
    ],
    ids=str,
)
async def test_each_part_of_the_key_counts(cache: TokenCache, change: dict[str, object]) -> None:
    await cache.put(KEY, token(CLOCK))
    assert await cache.get(replace(KEY, **change)) is None  # type: ignore[arg-type]  # by name


async def test_the_last_put_counts(cache: TokenCache) -> None:
    for name in ("t1", "t2"):
        await cache.put(KEY, token(CLOCK, name))
    found = await cache.get(KEY)
    assert found is not None
    assert found.id == "t2"


async def test_only_the_named_token_is_dropped(cache: TokenCache) -> None:
    await cache.put(KEY, token(CLOCK, "new"))
    await cache.drop(KEY, "old")
    assert await cache.get(KEY) is not None
    await cache.drop(KEY, "new")
    assert await cache.get(KEY) is None


async def test_forgetting_a_connection_leaves_the_others(cache: TokenCache) -> None:
    other = replace(KEY, connection_id="c2")
    for key in (KEY, other):
        await cache.put(key, token(CLOCK))
    cache.forget("c1")
    assert await cache.get(KEY) is None
    assert await cache.get(other) is not None
    await cache.put(KEY, token(CLOCK, "t2"))
    assert await cache.get(KEY) is not None


async def test_a_token_that_has_ended_is_not_kept(cache: TokenCache) -> None:
    await cache.put(KEY, token(CLOCK, life=-1.0))
    assert await cache.get(KEY) is None


async def test_it_is_our_turn_when_nobody_else_is_there(cache: TokenCache) -> None:
    for stale in (None, "t1"):
        async with cache.turn(KEY, stale) as shared:
            assert shared is None
        await cache.put(KEY, token(CLOCK))
