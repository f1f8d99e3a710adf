"""What is begun when a process ends, and what is left when Redis does: one `facade up` and its restarts."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.misbehaviour import trickle
from tests.support.redis_server import RedisServer, redis_server
from tests.support.registry import BearerAuth, Registry
from tests.support.stricken import Goods, Stricken, stricken
from tests.support.token_server import TokenServer

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

SIZE = 4 * 1024 * 1024
PIECE = 128 * 1024


@dataclass
class Scene:
    """The facade with its Redis, a registry that wants tokens, and images that nobody pulled: three
    for the restarts, three for the rest.
    """

    it: Stricken
    redis: RedisServer
    tokens: TokenServer
    goods: list[Goods]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("restarts")
    async with (
        redis_server(folder / "redis") as redis,
        TokenServer(anonymous=None) as tokens,
        stricken(
            folder,
            registry=Registry(auth=BearerAuth(tokens)),
            env={"FACADE_REDIS__URL": redis.url},
        ) as it,
    ):
        goods = await it.ship("a", "b", "c", "d", "e", "f", size=SIZE)
        yield Scene(it, redis, tokens, goods)


async def begun(it: Stricken, goods: Goods) -> Path:
    """Pull until some of the blob lies in a partial, and give that; the pull goes on slowly."""
    it.registry.script(f"*/blobs/{goods.layer}", trickle(PIECE, 0.1))
    async with it.opened(it.blob(goods)) as answer:
        assert answer.status == 200
        await answer.content.readexactly(4 * PIECE)
    [partial] = (it.facade.state / "cache" / "ingest").glob("*.partial")
    async with asyncio.timeout(30):
        while partial.stat().st_size < 4 * PIECE:  # noqa: ASYNC110 - readers have it sooner
            await asyncio.sleep(0.02)
    return partial


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_partial_is_picked_up_after_a_restart(scene: Scene, number: signal.Signals) -> None:
    it, goods = scene.it, scene.goods.pop()
    partial = await begun(it, goods)
    await (it.facade.stop() if number is signal.SIGTERM else it.facade.kill())
    have = partial.stat().st_size
    assert 4 * PIECE <= have < SIZE
    it.registry.behave()
    await it.facade.start()
    await it.pulls(goods)
    ranges = [seen.headers.get("range") for seen in it.registry.seen(f"*/blobs/{goods.layer}")]
    assert ranges[0] is None
    assert ranges[-1] == f"bytes={have}-", "nothing that was there is fetched again"
    await it.settled()
    assert not partial.exists()


async def test_a_partial_that_rotted_meanwhile_is_found_out(scene: Scene) -> None:
    it, goods = scene.it, scene.goods.pop()
    partial = await begun(it, goods)
    await it.facade.kill()
    with partial.open("r+b") as file:
        file.write(bytes(64))
    it.registry.behave()
    await it.facade.start()
    mark = it.mark
    got = await it.pull(goods)
    assert not got.complete or got.body == goods.payload
    await it.event("transfer_restarted", since=mark, words=str(goods.layer))
    await it.heals(goods)


async def shared(redis: RedisServer) -> set[bytes]:
    """The names of what lies in Redis, but for what it is tried with."""
    return set(await redis.values()) - {b"facade:probe"}


async def test_redis_killed_and_back(scene: Scene) -> None:
    it, redis = scene.it, scene.redis
    cached, first, second = scene.goods
    await it.pulls(cached)
    mark = it.mark
    await redis.stop()
    scene.tokens.revoke_all()
    await it.pulls(cached)
    await it.pulls(first)  # a token is exchanged, and kept in memory
    await it.event("redis_down", since=mark)
    status, reasons = await it.ready()
    assert status == 200
    assert any("Redis" in reason for reason in reasons), reasons
    assert await it.metric("facade_redis_up") == 0

    await redis.start()
    async with asyncio.timeout(30):
        while await it.metric("facade_redis_up") == 0:  # noqa: ASYNC110 - it tries by itself
            await asyncio.sleep(0.2)
    await it.event("redis_up", since=mark)
    assert (await it.ready())[1] == []
    # What is exchanged from now on is shared again.
    assert await shared(redis) == set()
    scene.tokens.revoke_all()
    await it.pulls(second)
    assert await shared(redis)
