"""The cache's index (`index.db`) deleted, damaged and locked, against a real `facade up` with two serving processes.

It only knows which repository proved to have what, and when it was used: losing it costs a HEAD for each object,
never a transfer, and never the right to be served. A new one is made and filled without a restart.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.crew import until, workers_of
from tests.support.stricken import Goods, Stricken, stricken

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(120)]

SIZE = 600_000
LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
database.execute("UPDATE object SET used = used")
print("locked", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """The facade, and images that nobody pulled."""

    it: Stricken
    fresh: Iterator[Goods]

    @property
    def index(self) -> Path:
        """The file."""
        return self.it.facade.state / "cache" / "index.db"

    def asked(self, goods: Goods) -> list[str]:
        """How the registry was asked for the layer so far."""
        requests = self.it.registry.seen(f"*/blobs/{goods.layer}", None)
        return [seen.method for seen in requests]

    async def cached(self) -> Goods:
        """An image in the cache."""
        goods = next(self.fresh)
        await self.it.pulls(goods)
        await self.it.settled()
        return goods

    async def restart(self) -> None:
        """`kill -9` of everything, and a new start."""
        workers = workers_of(self.it.facade.pid)
        await self.it.facade.kill()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        await self.it.facade.start()

    async def serves(self, goods: Goods, *asked: str) -> None:
        """What was cached is served by all processes, and this is all that the registry was asked."""
        for _ in range(8):
            await self.it.pulls(goods)
        assert self.asked(goods) == list(asked)

    async def works_again(self, *former: Goods) -> None:
        """What is cached from now on is known to all processes, and after a restart; what was cached before
        was not fetched again for all that.
        """
        async with asyncio.timeout(30):
            while await self.it.ready() != (200, []):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        later = await self.cached()
        await self.serves(later, "GET")
        mark = self.it.mark
        await self.restart()
        await self.serves(later, "GET")
        for goods in former:
            for _ in range(8):
                await self.it.pulls(goods)
            # One HEAD by the process that had not fetched it, perhaps into the old file; one after the restart.
            assert self.asked(goods) in (["GET", *["HEAD"] * count] for count in range(3))
        assert not [event for event in self.it.facade.events[mark:] if "index_" in event["event"]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("index")
    async with stricken(folder, env={"FACADE_DEVICE__WORKERS": "2"}) as it:
        fresh = await it.ship(*(f"i{number}" for number in range(8)), size=SIZE)
        it.registry.requests.clear()  # the import asked for sizes
        yield Scene(it, iter(fresh))


def deleted(index: Path) -> None:
    for path in index.parent.glob(f"{index.name}*"):
        path.unlink()


def damaged(index: Path) -> None:
    """As a disk does it: the length stays, every page is other bytes."""
    for path in (index, index.with_name(f"{index.name}-wal")):
        if path.exists():
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.write(random.Random(1).randbytes(size))


async def test_deleted_while_it_runs(scene: Scene) -> None:
    """Until there is a new one, seconds later, the open file goes on serving them."""
    it, old, mark = scene.it, await scene.cached(), scene.it.mark
    deleted(scene.index)
    new = await scene.cached()
    await it.event("index_gone", since=mark)
    await it.event("index_rebuilt", since=mark)
    await scene.works_again(old, new)


async def test_damaged_while_it_runs(scene: Scene) -> None:
    """Pulls go on; as soon as it is noticed there is a new one, with all that is in the cache."""
    it, old, mark = scene.it, await scene.cached(), scene.it.mark
    damaged(scene.index)
    new = next(scene.fresh)
    await it.pulls(new)
    await it.event("index_damaged", since=mark)
    for _ in range(8):
        await it.pulls(old)
    await it.event("index_rebuilt", since=mark)
    await scene.works_again(old, new)


@contextlib.asynccontextmanager
async def locked(index: Path) -> AsyncIterator[None]:
    """Another process holds the write lock meanwhile."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LOCK, str(index)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"locked\n"
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def test_locked(scene: Scene) -> None:
    it, old, mark = scene.it, await scene.cached(), scene.it.mark
    new = next(scene.fresh)
    async with locked(scene.index):
        await scene.serves(old, "GET")
        await it.pulls(new)
        await it.event("publish_failed", since=mark)
    await scene.serves(new, "GET", "HEAD")
