"""Warming over a worker's socket joins what devices pull, and takes nothing from them when it ends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.link.cache_client import SocketCachePort
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.serving.blobs.port import BlobSource
from facade.serving.cache_port import InProcessCachePort
from facade.upstream.connection import Connection
from facade.wings import CacheStatus, WarmResult
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blobs import CONNECTION, MEBI, REPOSITORY, Bench, get, make_content, open_cache
from tests.support.ports import cache_linked

CONTENT = make_content(3 * MEBI)
PATIENCE = 60.0


@dataclass
class _Sources:
    source: ScriptedSource

    def blob(self, connection: Connection, repository: Repository, digest: Digest) -> BlobSource:
        return self.source


class _Keeper:
    async def status(self) -> CacheStatus:
        raise NotImplementedError

    async def verify(self) -> tuple[int, int]:
        raise NotImplementedError

    async def prune(self) -> tuple[int, int]:
        raise NotImplementedError


async def _nothing() -> None:
    pass


@dataclass
class Parts:
    bench: Bench
    source: ScriptedSource
    port: SocketCachePort
    gate: asyncio.Event

    def warm(self) -> "asyncio.Task[WarmResult]":
        digest, size = Digest.of(CONTENT), len(CONTENT)
        return asyncio.create_task(self.port.warm(CONNECTION, REPOSITORY, digest, size))

    async def read(self) -> bytes:
        stream = await get(self.bench, self.source, CONTENT)
        try:
            return b"".join([bytes(view) async for view in stream.chunks()])
        finally:
            await stream.aclose()


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={MEBI: gate}))
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(open_cache(tmp_path / "cache"))
        port = InProcessCachePort(
            content=bench.cache,
            sources=_Sources(source),
            keeper=_Keeper(),
            refresh=_nothing,
            clock=SystemClock(),
        )
        linked = await stack.enter_async_context(cache_linked(port, tmp_path))
        yield Parts(bench, source, linked, gate)


async def _eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what happens behind a socket has no event here
            await asyncio.sleep(0.005)


def _readers(parts: Parts) -> int:
    """Of the one transfer."""
    running = parts.bench.cache.flights._running.values()
    return sum(len(transfer._audience.readers) for transfer in running)


async def test_a_warming_that_is_given_up_takes_nothing_from_a_device_that_joined_it(
    parts: Parts,
) -> None:
    warming = parts.warm()
    await _eventually(lambda: _readers(parts) == 1)
    reading = asyncio.create_task(parts.read())
    await _eventually(lambda: _readers(parts) == 2)
    warming.cancel()
    await asyncio.gather(warming, return_exceptions=True)
    await _eventually(lambda: _readers(parts) == 1)
    parts.gate.set()
    assert await asyncio.wait_for(reading, PATIENCE) == CONTENT
    assert len(parts.source.opened) == 1, "one transfer"


async def test_a_device_that_leaves_takes_nothing_from_a_warming_that_joined_it(
    parts: Parts,
) -> None:
    reading = asyncio.create_task(parts.read())
    await _eventually(lambda: _readers(parts) == 1)
    warming = parts.warm()
    await _eventually(lambda: _readers(parts) == 2)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    parts.gate.set()
    result = await asyncio.wait_for(warming, PATIENCE)
    assert (result.cached, result.bytes, result.error) == (True, len(CONTENT), None)
    assert len(parts.source.opened) == 1, "one transfer"
