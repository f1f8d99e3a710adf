"""A body that is received straight into its reader's buffers, over real sockets."""

import asyncio

import pytest

from facade.clock import SystemClock
from facade.errors import Denied, Upstream
from facade.upstream.retry import Timeouts
from tests.support.basin import KeepingBasin, poured
from tests.support.misbehaviour import stall, truncate, wrong_length
from tests.support.pki import Authority, server_context
from tests.support.registry import Registry
from tests.support.resolver import FakeResolver
from tests.support.upstream_client import APP, read_blob, registry_client

BLOCK = bytes(range(256)) * 4096
COUNT = 6
SIZE = len(BLOCK) * COUNT


@pytest.mark.parametrize("space", [1000, 300_000, 2 * SIZE])
async def test_everything_comes_in_order_whatever_space_there_is(space: int) -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        basin = KeepingBasin(space=space)
        async with client.blob(registry.connection(), APP, digest) as body:
            await body.pour(basin)
        assert basin.data == BLOCK * COUNT


async def test_over_tls_too_and_the_connection_is_used_again() -> None:
    authority, name = Authority.root("Registry CA"), "registry.example"
    async with (
        Registry(tls=server_context(authority.server(name)), name=name) as registry,
        registry_client(clock=SystemClock(), resolver=FakeResolver({name: "127.0.0.1"})) as client,
    ):
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        connection = registry.connection(ca_pem=authority.pem.decode())
        for every in (0, 400_000):
            basin = SlowBasin(space=300_000, every=every)
            async with client.blob(connection, APP, digest) as body:
                await body.pour(basin)
            assert basin.data == BLOCK * COUNT
            assert not basin.overrun
        assert registry.connections == 1


async def test_the_connection_is_used_again() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        connection = registry.connection()
        for offset in (0, 0, SIZE - 1, 0):
            data = await read_blob(client, connection, digest, offset=offset)
            assert data == (BLOCK * COUNT)[offset:]
        assert registry.connections == 1


async def test_a_full_basin_pauses_the_registry() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        basin = SlowBasin(space=100_000, every=400_000)
        async with client.blob(registry.connection(), APP, digest) as body:
            await body.pour(basin)
        assert basin.data == BLOCK * COUNT
        assert basin.waited >= SIZE // 400_000
        assert not basin.overrun


class SlowBasin(KeepingBasin):
    """Notes whether bytes came while there was no space for them."""

    overrun = False
    _full = False

    def filled(self, count: int) -> None:
        self.overrun = self.overrun or self._full
        super().filled(count)

    async def make_space(self) -> None:
        self._full = True
        await asyncio.sleep(0.005)
        self._full = False
        await super().make_space()


class RefusingBasin(KeepingBasin):
    """Takes nothing more once it has `limit` bytes."""

    limit = SIZE // 2

    def filled(self, count: int) -> None:
        super().filled(count)
        if len(self.data) >= self.limit:
            raise Denied("not any more")


async def test_a_basin_that_refuses_ends_it_and_the_connection() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        connection = registry.connection()

        async def refuse() -> None:
            async with client.blob(connection, APP, digest) as body:
                await body.pour(RefusingBasin())

        with pytest.raises(Denied):
            await refuse()
        assert await read_blob(client, connection, digest) == BLOCK * COUNT
        assert registry.connections == 2


async def test_leaving_in_the_middle_ends_the_connection() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        connection = registry.connection()
        registry.script("*", stall(SIZE // 2))
        basin = KeepingBasin()

        async def read() -> None:
            async with client.blob(connection, APP, digest) as body:
                await body.pour(basin)

        task = asyncio.create_task(read())
        async with asyncio.timeout(10):
            while len(basin.data) < SIZE // 2:  # noqa: ASYNC110 - a real socket
                await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        registry.behave()
        assert await read_blob(client, connection, digest) == BLOCK * COUNT
        assert registry.connections == 2


async def test_a_body_that_is_cut_short_breaks_off_with_what_came() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        registry.script("*", truncate(SIZE // 2))
        basin = KeepingBasin()

        async def read() -> None:
            async with client.blob(registry.connection(), APP, digest) as body:
                await body.pour(basin)

        with pytest.raises(Upstream, match="broke off in the middle"):
            await read()
        assert len(basin.data) >= SIZE // 4
        assert basin.data == (BLOCK * COUNT)[: len(basin.data)]


async def test_what_is_sent_behind_the_end_is_nobody_s() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)
        registry.script("*", wrong_length(-100_000))
        assert await read_blob(client, registry.connection(), digest) == (BLOCK * COUNT)[:-100_000]


async def test_a_slow_basin_is_not_the_registry_s_fault() -> None:
    timeouts = Timeouts(stall_window=0.1, stall_bytes=10_000_000)
    async with (
        Registry() as registry,
        registry_client(clock=SystemClock(), timeouts=timeouts) as client,
    ):
        digest, _ = registry.add_repeated_blob(str(APP), BLOCK, COUNT)

        class Sleeping(KeepingBasin):
            async def make_space(self) -> None:
                await super().make_space()
                if self.waited == 2:
                    await asyncio.sleep(0.5)

        async with client.blob(registry.connection(), APP, digest) as body:
            basin = Sleeping(space=1_000_000, every=1_000_000)
            await body.pour(basin)
        assert basin.data == BLOCK * COUNT


async def test_a_small_body_comes_too() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        for content in (b"", b"x", bytes(1000)):
            digest = registry.add_blob(str(APP), content)
            async with client.blob(registry.connection(), APP, digest) as body:
                assert await poured(body) == content
