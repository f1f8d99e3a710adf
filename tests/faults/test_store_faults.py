"""A cache folder that is full, read-only, changed behind our back; a database that is locked. Against
one running `facade up`, whose cache lies on a small file system of its own.

In each nothing wrong is served, what is cached goes on being served, the operator sees why, and it heals
when the fault is gone, without a restart.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from facade.serving.blobs.port import BLOCK_BYTES
from tests.support.misbehaviour import slow_head, truncate
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.sqlite_lock import locked
from tests.support.stricken import Goods, Stricken, stricken

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

SIZE = 1024 * 1024
LARGE = 10 * 1024 * 1024
DISK = 96 * 1024 * 1024
MISSING = 1000
"""Bytes. On this disk the last page is there then: only what publishing adds needs room."""


@dataclass
class Scene:
    """The facade on its small disk, what is cached, and what is not."""

    it: Stricken
    disk: SmallDisk
    cached: Goods
    fresh: Iterator[Goods]

    def stored(self, goods: Goods) -> Path:
        """The cached file of a layer."""
        digest = goods.layer
        return self.disk.folder / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex

    async def ready_but_for(self, words: str) -> None:
        """Return when /readyz, always 200, has one reason, which has these words ("": has none)."""
        async with asyncio.timeout(30):
            while True:
                status, reasons = await self.it.ready()
                assert status == 200
                if (words in reasons[0] and len(reasons) == 1) if reasons else not words:
                    return
                await asyncio.sleep(0.2)

    @property
    def partials(self) -> list[Path]:
        return list((self.disk.folder / "ingest").glob("*.partial"))

    async def in_the_cache(self) -> Goods:
        """A fresh image, pulled, so that its layer is in the cache."""
        goods = next(self.fresh)
        await self.it.pulls(goods)
        await self.it.settled()
        async with asyncio.timeout(10):
            while not self.stored(goods).exists():  # noqa: ASYNC110 - it is published just now
                await asyncio.sleep(0.02)
        return goods

    async def nearly_there(self, goods: Goods) -> asyncio.Task[None]:
        """A pull of which all but the last bytes lie in the partial; they come two seconds later."""
        nearly = len(goods.payload) - MISSING
        self.it.registry.script(f"*/blobs/{goods.layer}", truncate(nearly), slow_head(2))
        pulling = asyncio.create_task(self.it.pulls(goods))
        async with asyncio.timeout(20):
            while [path.stat().st_size for path in self.partials] != [nearly]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return pulling

    async def gets(self, goods: Goods, outcome: str) -> None:
        """A pull of the layer that is right, and a "hit" or a "miss"."""
        before = await self.it.metric("facade_cache_requests_total", outcome=outcome)
        await self.it.pulls(goods)
        now = await self.it.metric("facade_cache_requests_total", outcome=outcome)
        assert now == before + 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("store")
    with small_disk(folder / "disk", DISK) as disk:
        env = {"FACADE_STORE__URL": f"file://{disk.folder}"}
        async with stricken(folder, env=env) as it:
            cached, *fresh = await it.ship(*(f"i{number}" for number in range(24)), size=SIZE)
            await it.pulls(cached)
            await it.settled()
            yield Scene(it, disk, cached, iter(fresh))


@pytest_asyncio.fixture(loop_scope="module")
async def scene(shared: Scene) -> AsyncIterator[Scene]:
    yield shared
    shared.it.registry.behave()
    await shared.gets(shared.cached, "hit")
    await shared.in_the_cache()
    await shared.ready_but_for("")


async def test_disk_full_during_a_fetch(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    goods = next(scene.fresh)
    with scene.disk.filled(leave=SIZE // 2):
        await asyncio.gather(*(it.pulls(goods) for _ in range(3)))
        told = await it.event("caching_stopped", since=mark, words=str(goods.layer))
        assert "No space left on device" in told["error"]
        await scene.gets(scene.cached, "hit")
        async with asyncio.timeout(10):
            while scene.partials:  # noqa: ASYNC110 - it goes when the last reader has left
                await asyncio.sleep(0.02)
    assert not scene.stored(goods).exists()
    await it.pulls(goods)
    await it.settled()
    await scene.gets(goods, "hit")


async def test_disk_full_at_publish(scene: Scene) -> None:
    """A large blob's tags need a file."""
    it, mark = scene.it, scene.it.mark
    [goods] = await it.ship("large", size=LARGE)
    pulling = await scene.nearly_there(goods)
    with scene.disk.filled(leave=0):
        await pulling
        told = await it.event("publish_failed", since=mark, words=str(goods.layer))
        assert "No space left on device" in told["error"]
        await scene.gets(scene.cached, "hit")
        assert not scene.stored(goods).exists()
    it.registry.behave()
    await it.pulls(goods)
    await it.settled()
    await scene.gets(goods, "hit")


@pytest.mark.slow
async def test_folder_unwritable(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    goods = next(scene.fresh)
    with scene.disk.read_only():
        for _ in range(2):
            await scene.gets(goods, "miss")
        told = await it.event("caching_stopped", since=mark, words=str(goods.layer))
        assert "Read-only file system" in told["error"]
        await scene.gets(scene.cached, "hit")
        await scene.ready_but_for("the cache's folder cannot be written (Read-only file system)")
    await it.event("cache_writable", since=mark)
    await it.pulls(goods)
    await it.settled()
    await scene.gets(goods, "hit")


async def test_folder_unwritable_at_publish(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    goods = next(scene.fresh)
    pulling = await scene.nearly_there(goods)
    with scene.disk.read_only():
        await pulling
        await it.event("publish_failed", since=mark, words="Read-only file system")
        await it.settled()
        await scene.gets(scene.cached, "hit")
    assert "transfer_crashed" not in it.facade.log
    it.registry.behave()
    await it.pulls(goods)
    await it.settled()
    await scene.gets(goods, "hit")


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(SIZE - BLOCK_BYTES - 7)


def flipped(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(SIZE // 2)
        (byte,) = file.read(1)
        file.seek(SIZE // 2)
        file.write(bytes([byte ^ 1]))


def zeroed(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(SIZE))


def replaced(path: Path) -> None:
    path.unlink()
    path.write_bytes(bytes(SIZE))


@pytest.mark.parametrize("harm", [truncated, flipped, zeroed, replaced])
async def test_cache_file(scene: Scene, harm: Callable[[Path], None]) -> None:
    """Between two reads. Nothing wrong goes out; the next pull has it from the registry."""
    it, mark = scene.it, scene.it.mark
    failed = await it.metric("facade_integrity_failures_total")
    goods = await scene.in_the_cache()
    harm(scene.stored(goods))
    got = await it.pull(goods)
    if got.status == 200:
        assert goods.payload.startswith(got.body)
        assert got.complete == (got.body == goods.payload)
    else:
        assert (got.status, got.reason) == (502, "integrity")
    told = {event["event"] for event in it.facade.events[mark:]}
    spoiled = "cached_object_spoiled" in told  # else it was found out before it was opened
    assert spoiled or "cached_object_unfit" in told
    assert await it.metric("facade_integrity_failures_total") == failed + 1
    await it.pulls(goods)
    assert len(it.registry.seen(f"*/blobs/{goods.layer}")) == 2
    await it.settled()
    await scene.gets(goods, "hit")


async def test_cache_file_removed_between_reads(scene: Scene) -> None:
    goods = await scene.in_the_cache()
    scene.stored(goods).unlink()
    await scene.gets(goods, "miss")
    await scene.it.settled()
    await scene.gets(goods, "hit")


@contextlib.asynccontextmanager
async def being_read(scene: Scene, goods: Goods) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer whose head has come, and of whose body only the beginning was sent."""
    async with scene.it.opened(scene.it.blob(goods)) as answer:
        assert answer.status == 200
        yield answer


async def test_cache_file_truncated_while_being_read(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    [goods] = await it.ship("large", size=LARGE)
    await it.pulls(goods)
    await it.settled()
    async with being_read(scene, goods) as answer:
        with scene.stored(goods).open("r+b") as file:
            file.truncate(BLOCK_BYTES)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await it.event("cached_object_spoiled", since=mark, words=str(goods.layer))
    await it.pulls(goods)


async def test_cache_file_flipped_while_being_read(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    [goods] = await it.ship("large", size=LARGE)
    await it.pulls(goods)
    await it.settled()
    async with being_read(scene, goods) as answer:
        with scene.stored(goods).open("r+b") as file:
            file.seek(len(goods.payload) - 5)
            file.write(bytes(5))
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    await it.event("cached_object_spoiled", since=mark, words=str(goods.layer))
    await it.pulls(goods)


async def test_cache_file_removed_while_being_read(scene: Scene) -> None:
    """The open file is read to its end; the next pull has it from the registry."""
    it = scene.it
    [goods] = await it.ship("large", size=LARGE)
    await it.pulls(goods)
    await it.settled()
    async with being_read(scene, goods) as answer:
        scene.stored(goods).unlink()
        assert await answer.read() == goods.payload
    await scene.gets(goods, "miss")


async def test_database_locked(scene: Scene) -> None:
    """Pulls need no write; what they report waits, and an operator is told what is wrong."""
    it = scene.it
    goods = next(scene.fresh)
    database = it.facade.state / "facade.db"
    mark = it.mark
    with locked(database):
        await scene.gets(scene.cached, "hit")
        await it.pulls(goods)
        refused = await it.facade.cli("registry", "add", "other.example", "--anonymous")
        assert refused.code == 1
        assert "database is locked" in refused.stderr
        late = await it.event("reports_delayed", since=mark)
        assert "database is locked" in late["error"]
        await scene.gets(scene.cached, "hit")
    assert await it.metric("facade_reports_dropped_total") == 0
    async with asyncio.timeout(20):
        while str(goods.layer) not in pulled_digests(database):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await it.facade.must("registry", "add", "other.example", "--anonymous")


def pulled_digests(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return {row[0] for row in connection.execute("SELECT digest FROM pulls")}
