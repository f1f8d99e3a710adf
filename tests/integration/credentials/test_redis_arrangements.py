"""Every form of `[redis] url` against real servers: password, TLS, cluster, sentinels."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from facade.clock import SystemClock
from facade.control.credentials.tokens import TokenKey, TokenKind
from tests.support.docker_registry import free_port
from tests.support.pki import Authority, client_context
from tests.support.redis_server import PASSWORD, RedisServer, answers, redis_server
from tests.support.token_caches import KEY, Noted, redis_cache, shared, token

CLOCK = SystemClock()


async def is_shared(url: str) -> bool:
    """Whether what one process puts is there for another; both must have found Redis answering."""
    noted = Noted()
    async with redis_cache(url, noted=noted, seconds=3) as one:
        await one.put(KEY, token(CLOCK))
    async with redis_cache(url, noted=noted, seconds=3) as two:
        found = await shared(two)
    return found is not None and noted.up == []


async def test_a_password_with_odd_characters(tmp_path: Path) -> None:
    async with redis_server(tmp_path, password=PASSWORD) as server:
        assert await is_shared(server.url)
        assert not await is_shared(server.url.replace("redis-pa55", "guess"))
        assert not await is_shared(f"redis://127.0.0.1:{server.port}")


async def test_a_user_name_and_a_database(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        await command(server, "ACL", "SETUSER", "facade", "on", ">pw", "~facade:*", "+@all")
        assert await is_shared(f"redis://facade:pw@127.0.0.1:{server.port}/3")
        async with Redis(host="127.0.0.1", port=server.port, db=3) as client:
            assert await client.dbsize() == 1


async def test_tls_with_a_ca_of_its_own(tmp_path: Path) -> None:
    authority = Authority.root("Redis CA")
    ca = authority.write(tmp_path)
    files = authority.server("127.0.0.1").write(tmp_path, "redis")
    async with redis_server(
        tmp_path / "redis",
        *("--port", "0", "--tls-port", str(port := free_port()), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key)),
        *("--tls-ca-cert-file", str(ca)),
        port=port,
        tls=client_context(authority),
    ):
        assert await is_shared(f"rediss://127.0.0.1:{port}?ca_file={ca}")
        assert not await is_shared(f"rediss://127.0.0.1:{port}"), "the system knows no such CA"
        other = Authority.root("Another CA").write(tmp_path, "other.crt")
        assert not await is_shared(f"rediss://127.0.0.1:{port}?ca_file={other}")
        assert not await is_shared(f"redis://127.0.0.1:{port}"), "nothing goes there in the clear"


async def test_a_cluster(tmp_path: Path) -> None:
    arguments = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    async with (
        redis_server(tmp_path / "one", *arguments) as one,
        redis_server(tmp_path / "two", *arguments) as two,
    ):
        await join(one, two)
        url = f"redis+cluster://127.0.0.1:{one.port},127.0.0.1:{two.port}"
        assert await is_shared(url)
        keys = [TokenKey(TokenKind.CLOUD, f"c{number}", 1, "") for number in range(20)]
        async with redis_cache(url, seconds=3) as cache:
            for key in keys:
                await cache.put(key, token(CLOCK))
            async with one.client() as first, two.client() as second:
                sizes = [await first.dbsize(), await second.dbsize()]
                assert min(sizes) > 0
                assert sum(sizes) == len(keys) + 1
                for key in keys:
                    cache.forget(key.connection_id)
        assert await first.dbsize() + await second.dbsize() == 1
        await first.aclose()
        await second.aclose()


async def join(one: RedisServer, two: RedisServer) -> None:
    """Make a cluster of two servers, half of the slots each."""
    await command(one, "CLUSTER", "ADDSLOTSRANGE", "0", "8191")
    await command(two, "CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
    await command(one, "CLUSTER", "MEET", "127.0.0.1", str(two.port))
    async with asyncio.timeout(20):
        for server in (one, two):
            while "cluster_state:ok" not in await command(server, "CLUSTER", "INFO"):  # noqa: ASYNC110 - a real server
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_sentinels_lead_to_the_master_and_to_the_next_one(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path / "master") as master,
        redis_server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port)) as replica,
    ):
        port = free_port()
        (tmp_path / "sentinel").mkdir()
        config = tmp_path / "sentinel" / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {tmp_path}/sentinel\nrequirepass watcher\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
        )
        with (tmp_path / "sentinel" / "log").open("wb") as log:
            sentinel = await asyncio.create_subprocess_exec(
                *("redis-server", str(config), "--sentinel"), stdout=log, stderr=log
            )
        try:
            await answers(port)
            url = f"redis+sentinel://127.0.0.1:{port}/main?sentinel_password=watcher"
            assert await is_shared(url)
            assert not await is_shared(url.replace("/main", "/other"))
            async with Redis(host="127.0.0.1", port=port, password="watcher") as watcher:
                async with asyncio.timeout(30):
                    while not await watcher.sentinel_slaves("main"):  # noqa: ASYNC110 - a real one
                        await asyncio.sleep(0.1)
            noted = Noted()
            async with redis_cache(url, noted=noted) as cache:
                await cache.put(KEY, token(CLOCK))
                await master.stop()
                async with asyncio.timeout(40):
                    while "master" not in await command(replica, "ROLE"):
                        await cache.put(KEY, token(CLOCK, "t2"))
                        await asyncio.sleep(0.2)
                    while noted.up[-1:] != [True]:  # noqa: ASYNC110 - real time
                        await asyncio.sleep(0.1)
                await cache.put(KEY, token(CLOCK, "t3"))
            async with redis_cache(url) as other:
                found_token = await shared(other)
                assert found_token is not None
                assert found_token.id == "t3"
        finally:
            sentinel.kill()
            await sentinel.wait()


async def command(server: RedisServer, *words: str) -> str:
    """What it answers, raw."""
    async with server.client() as client:
        untyped: Any = client
        return str(await untyped.execute_command(*words, NEVER_DECODE=True))
