"""Tokens through a real Redis: sealed, shared, one exchange at a time, never waited for long."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.credentials.cache.redis import LOCK_SECONDS
from tests.support.docker_registry import free_port
from tests.support.redis_server import RedisServer, redis_server
from tests.support.registry import BearerAuth, Registry
from tests.support.token_caches import KEY, PASSWORD, RING, USER, Noted, redis_cache, shared, token
from tests.support.token_server import Account, TokenServer

CLOCK = SystemClock()
OTHER = replace(KEY, repository="b")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path / "redis") as server:
        yield server


async def test_two_processes_share_a_token(server: RedisServer) -> None:
    async with redis_cache(server.url) as one, redis_cache(server.url) as two:
        await one.put(KEY, token(CLOCK))
        found = await shared(two, KEY)
        assert found is not None
        assert found.secret.reveal() == "canary-t1"
        await two.drop(KEY, "t1")
    async with redis_cache(server.url) as three:
        assert await shared(three, KEY) is None


async def test_what_lies_there_is_sealed_and_ends_with_the_token(server: RedisServer) -> None:
    async with redis_cache(server.url) as cache, server.client() as client:
        await cache.put(KEY, token(CLOCK, life=100))
        [(name, value)] = (await server.values()).items()
        assert b"canary" not in name + value
        assert value.startswith(f"f1.{RING.primary}.".encode())
        assert 98_000 < await client.pttl(name) <= 100_000


async def test_a_writer_that_swaps_values_gets_nothing(server: RedisServer) -> None:
    noted = Noted()
    async with redis_cache(server.url) as writer, server.client() as client:
        await writer.put(KEY, token(CLOCK, "mine"))
        [mine] = await server.values()
        await writer.put(OTHER, token(CLOCK, "other"))
        [other] = set(await server.values()) - {mine}
        stolen = await client.get(mine)
        assert isinstance(stolen, bytes)
        await client.set(other, stolen)
        await client.set(mine, stolen[:-2] + b"AA")
    async with redis_cache(server.url, noted=noted) as reader:
        assert await shared(reader, OTHER) is None
        assert await shared(reader, KEY) is None
    assert noted.refused == 4, "each turn looks twice"


@pytest.mark.parametrize("value", [b"f1.", b"\xff\xfe", b"x" * 1_000_000, b"{}", b"f9.a.b"])
async def test_a_writer_of_rubbish_gets_nothing(server: RedisServer, value: bytes) -> None:
    async with redis_cache(server.url) as writer, server.client() as client:
        await writer.put(KEY, token(CLOCK))
        [name] = await server.values()
        await client.set(name, value)
    async with redis_cache(server.url) as reader:
        assert await shared(reader, KEY) is None


async def test_a_writer_of_another_type_does_not_even_disturb(server: RedisServer) -> None:
    noted = Noted()
    async with redis_cache(server.url, noted=noted) as cache, server.client() as client:
        await cache.put(KEY, token(CLOCK))
        [name] = await server.values()
        await client.delete(name)
        await client.sadd(name, "x")
        async with cache.turn(KEY, "t1") as found:
            assert found is None
            await cache.put(KEY, token(CLOCK, "t2"))
        assert await client.type(name) == b"string"
    assert noted.up == []


@pytest.mark.parametrize("setting", ["maxmemory", "min-replicas-to-write"])
async def test_a_redis_that_takes_no_writes_counts_as_down(
    server: RedisServer, setting: str
) -> None:
    """Else it would go down and up again with each token, or, with some refusals, never."""
    noted = Noted()
    async with redis_cache(server.url, noted=noted) as cache, server.client() as client:
        await client.config_set(setting, "1")
        for _ in range(5):
            await cache.put(KEY, token(CLOCK))
            await asyncio.sleep(0.2)
        assert noted.up == [False]
        await client.config_set(setting, "0")
        async with asyncio.timeout(10):
            while noted.up != [False, True]:  # noqa: ASYNC110 - real time, for a real server
                await asyncio.sleep(0.05)
        await cache.put(KEY, token(CLOCK))
        assert any(name.startswith(b"facade:token:") for name in await server.values())


async def test_a_writer_that_lengthens_a_life_gets_nothing(server: RedisServer) -> None:
    async with redis_cache(server.url) as writer, server.client() as client:
        await writer.put(KEY, token(CLOCK, life=0.3))
        [name] = await server.values()
        await client.persist(name)
        await asyncio.sleep(0.35)
        assert await client.exists(name)
    async with redis_cache(server.url) as reader:
        assert await shared(reader, KEY) is None


async def test_another_key_of_the_ring_opens_nothing(server: RedisServer) -> None:
    async with redis_cache(server.url) as cache:
        await cache.put(KEY, token(CLOCK))
    async with redis_cache(server.url, ring=KeyRing.generate()) as stranger:
        assert await shared(stranger, KEY) is None


async def test_resealing_takes_out_what_the_old_key_sealed(server: RedisServer) -> None:
    both = RING.with_fresh_primary()
    async with redis_cache(server.url) as cache:
        await cache.put(KEY, token(CLOCK))
        await cache.reseal(Sealer(both.only_primary(), "tokens"), frozenset({RING.primary}))
        assert await server.values() == {}
        assert await cache.get(KEY) is not None, "this process still has it"
        await cache.put(OTHER, token(CLOCK))
        [value] = (await server.values()).values()
        assert value.startswith(f"f1.{both.primary}.".encode())


async def test_forgetting_counts_though_redis_still_has_it(server: RedisServer) -> None:
    async with redis_cache(server.url) as other, redis_cache(server.url) as cache:
        await other.put(KEY, token(CLOCK))
        cache.forget("c1")
        assert await shared(cache) is None
        assert len(await server.values()) == 1
        other.forget("c1")
    assert await server.values() == {}


async def test_a_redis_that_was_never_there_costs_nothing() -> None:
    noted = Noted()
    async with redis_cache(f"redis://127.0.0.1:{free_port()}", noted=noted) as cache:
        started = time.monotonic()
        await cache.put(KEY, token(CLOCK))
        assert await cache.get(KEY) is not None
        assert await shared(cache, OTHER) is None
        assert time.monotonic() - started < 1
    assert noted.up == [False]


async def test_a_redis_that_comes_back_is_used_again(tmp_path: Path) -> None:
    noted = Noted()
    async with redis_server(tmp_path) as server, redis_cache(server.url, noted=noted) as cache:
        await cache.put(KEY, token(CLOCK))
        await server.stop()
        await cache.put(OTHER, token(CLOCK))
        assert await cache.get(OTHER) is not None
        assert await cache.get(KEY) is not None
        assert noted.up == [False]
        await server.start()
        async with asyncio.timeout(10):
            while noted.up != [False, True]:  # noqa: ASYNC110 - real time, for a real server
                await asyncio.sleep(0.05)
        await cache.put(OTHER, token(CLOCK, "t2"))
        assert any(name.startswith(b"facade:token:") for name in await server.values())


async def test_a_restart_goes_unnoticed(tmp_path: Path) -> None:
    noted = Noted()
    async with redis_server(tmp_path) as server, redis_cache(server.url, noted=noted) as cache:
        await cache.put(KEY, token(CLOCK))
        await server.stop()
        await server.start()
        await cache.put(KEY, token(CLOCK))
        assert len(await server.values()) == 1
    assert noted.up == []


async def test_a_redis_that_hangs_delays_one_request_once(server: RedisServer) -> None:
    async with redis_cache(server.url) as cache:
        await cache.put(KEY, token(CLOCK))
        server.freeze()
        started = time.monotonic()
        assert await cache.get(KEY) is not None, "the memory comes first"
        assert time.monotonic() - started < 0.1
        async with cache.turn(OTHER, None):
            await cache.put(OTHER, token(CLOCK))
        assert time.monotonic() - started < 1.0
        again = time.monotonic()
        assert await shared(cache, replace(KEY, repository="c")) is None
        assert time.monotonic() - again < 0.1
        server.thaw()


async def test_the_second_process_waits_and_takes_what_the_first_got(server: RedisServer) -> None:
    async with redis_cache(server.url) as one, redis_cache(server.url) as two:
        async with one.turn(KEY, None) as found:
            assert found is None

            async def wait() -> str | None:
                async with two.turn(KEY, None) as found:
                    return None if found is None else found.id

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await one.put(KEY, token(CLOCK))
        assert await waiting == "t1"
        async with two.turn(KEY, "t1") as found:
            assert found is None, "that one is the stale one"


async def test_a_failed_exchange_leaves_the_turn_to_the_next(server: RedisServer) -> None:
    async with redis_cache(server.url) as one, redis_cache(server.url) as two:
        with pytest.raises(RuntimeError):
            async with one.turn(KEY, None):
                raise RuntimeError
        async with asyncio.timeout(1), two.turn(KEY, None) as found:
            assert found is None


async def test_a_cancelled_waiter_leaves_no_lock(server: RedisServer) -> None:
    async with redis_cache(server.url) as one, redis_cache(server.url) as two:

        async def wait() -> None:
            async with two.turn(KEY, None):
                await asyncio.sleep(60)

        async with one.turn(KEY, None):
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(1), one.turn(KEY, None) as found:
            assert found is None
    assert await server.values() == {}


@pytest.mark.slow
async def test_a_lock_is_kept_while_its_holder_lives_and_ends_after_it(server: RedisServer) -> None:
    async with redis_cache(server.url) as one, redis_cache(server.url) as two, one.turn(KEY, None):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(LOCK_SECONDS + 1), two.turn(KEY, None):
                pass
    async with server.client() as client, redis_cache(server.url) as three:
        async with three.turn(KEY, None):
            [name] = await server.values()
        await asyncio.sleep(0.1)
        await client.set(name, "somebody who was killed", px=int(LOCK_SECONDS * 1000))
        started = time.monotonic()
        async with three.turn(KEY, None) as found:
            assert found is None
        assert time.monotonic() - started < LOCK_SECONDS + 1


async def test_nobody_releases_anothers_lock(server: RedisServer) -> None:
    async with redis_cache(server.url) as cache, server.client() as client:
        async with cache.turn(KEY, None):
            [name] = await server.values()
            await client.set(name, "another", px=60_000)
        await asyncio.sleep(0.1)
        assert await client.get(name) == b"another"


async def test_500_waiters_over_two_processes_one_exchange(
    server: RedisServer, tmp_path: Path
) -> None:
    ring = tmp_path / "ring"
    KeyRing.generate().save(ring)
    async with (
        TokenServer({USER: Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
    ):
        tokens.manner.delay = 0.3
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.token_caches"),
                *(server.url, str(ring), str(registry.host), tokens.realm, "250"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[3],
            )
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert (await process.stdout.readline()) == b"ready\n"
        said = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
        assert {out for out, _ in said} == {f'["Bearer {tokens.issued[0]}"]\n'.encode()}
        assert len(tokens.requests) == 1
