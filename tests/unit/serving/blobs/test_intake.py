"""What a thread does with the last bytes: published there and then, once, and only what is right."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from facade.errors import Integrity, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.serving.blobs.intake import Intake
from facade.serving.blobs.port import BlobKey, Feed
from facade.serving.blobs.verify import StreamVerifier
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blob_store import MemoryIngest, MemoryStore
from tests.support.blobs import (
    Reading,
    get,
    idle,
    key_of,
    make_content,
    make_executor,
    open_cache,
    read_all,
)

CONTENT = make_content(100_000)
LONGER = CONTENT + b"x"
CHUNKED = Answer(content=LONGER, total=None)
FULL = Unavailable("The store cannot take it.")


@dataclass
class Ingested:
    """An `Ingest` that notes what was done to it; `publish` waits until it may."""

    write_fails: bool = False
    publish_fails: bool = False
    done: list[str] = field(default_factory=list)
    may_publish: threading.Event = field(default_factory=threading.Event)
    have: int = 0
    superseded: bool = False

    def write(self, data: memoryview) -> None:
        if self.write_fails:
            raise FULL
        self.done.append("write")

    def publish(self) -> None:
        assert self.may_publish.wait(10), "nobody was told first"
        self.done.append("publish")
        if self.publish_fails:
            raise FULL

    async def read(self, into: memoryview, offset: int) -> int:
        raise NotImplementedError

    def restart(self) -> None:
        raise NotImplementedError

    async def close(self, *, keep: bool, refusal: Upstream | None = None) -> None:
        raise NotImplementedError


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with make_executor() as executor:
        yield executor


async def work(ingest: Ingested, *pieces: bytes, exact: bool = True) -> tuple[Intake, list[object]]:
    """Have all of them worked on in a thread; with what that returned for each."""
    verifier = StreamVerifier(Digest.of(CONTENT), len(CONTENT))
    intake = Intake(verifier, matched=ingest.may_publish.set)
    intake.ingest, intake.exact = ingest, exact
    return intake, [await asyncio.to_thread(intake.work, memoryview(each)) for each in pieces]


async def test_it_is_published_with_the_last_bytes_once_its_readers_were_told(
    executor: ThreadPoolExecutor,
) -> None:
    ingest = Ingested()
    intake, said = await work(ingest, CONTENT[:1000], CONTENT[1000:])
    assert said == [None, None]
    assert ingest.done == ["write", "write", "publish"]
    assert await intake.publish(executor)
    assert ingest.done.count("publish") == 1


async def test_where_more_may_follow_it_waits_for_the_end(executor: ThreadPoolExecutor) -> None:
    ingest = Ingested()
    intake, _ = await work(ingest, CONTENT, exact=False)
    assert not ingest.may_publish.is_set()
    assert ingest.done == ["write"]
    ingest.may_publish.set()
    assert await intake.publish(executor)
    assert ingest.done == ["write", "publish"]


@pytest.mark.parametrize("wrong", [CONTENT[:-1], CONTENT[:-1] + b"\0", CONTENT + b"\0"])
async def test_what_does_not_match_is_not_published(wrong: bytes) -> None:
    assert wrong != CONTENT
    ingest = Ingested()
    await work(ingest, wrong)
    assert not ingest.may_publish.is_set()
    assert ingest.done == ["write"]


async def test_a_store_that_fails_at_the_last_step_says_so_at_the_end(
    executor: ThreadPoolExecutor,
) -> None:
    ingest = Ingested(publish_fails=True)
    intake, said = await work(ingest, CONTENT)
    assert said == [None]  # its readers have it all: nothing goes on without the store
    with pytest.raises(Unavailable):
        await intake.publish(executor)
    assert ingest.done == ["write", "publish"]


async def test_what_could_not_be_written_is_not_published(executor: ThreadPoolExecutor) -> None:
    ingest = Ingested(write_fails=True)
    intake, said = await work(ingest, CONTENT)
    assert said == [FULL]
    assert ingest.done == []
    intake.ingest = None  # what the transfer does then
    assert not await intake.publish(executor)


class Late(MemoryStore):
    """Publishing waits until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_publish = threading.Event()

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> MemoryIngest:
        ingest = await super().ingest(key, size, feed)
        publish = ingest.publish

        def late() -> None:
            assert self.may_publish.wait(10)
            publish()

        ingest.publish = late  # type: ignore[method-assign]  # this one's alone
        return ingest


async def test_readers_do_not_wait_for_the_disk_and_a_stop_lets_it_finish(tmp_path: Path) -> None:
    store = Late()
    async with open_cache(tmp_path, store=store) as bench:
        stream = await get(bench, ScriptedSource(CONTENT), CONTENT)
        assert await read_all(stream) == CONTENT
        assert not store.kept
        closing = asyncio.create_task(bench.cache.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        store.may_publish.set()
        await closing
        assert list(store.kept) == [Digest.of(CONTENT)]
        assert await bench.index.has(key_of(CONTENT))


class Stopped(MemoryStore):
    """Its thread waits before it writes, and says when it has published."""

    def __init__(self) -> None:
        super().__init__()
        self.writes, self.may_write, self.has_published = (threading.Event() for _ in range(3))

    async def ingest(self, key: BlobKey, size: int, feed: Feed) -> MemoryIngest:
        ingest = await super().ingest(key, size, feed)
        write, publish = ingest.write, ingest.publish

        def late(data: memoryview) -> None:
            self.writes.set()
            assert self.may_write.wait(10)
            write(data)

        def told() -> None:
            publish()
            self.has_published.set()

        ingest.write, ingest.publish = late, told  # type: ignore[method-assign]  # this one's
        return ingest


async def test_what_a_thread_published_before_a_stop_was_told_so_is_recorded(
    tmp_path: Path,
) -> None:
    store = Stopped()
    async with open_cache(tmp_path, store=store) as bench:
        reading = Reading(await get(bench, ScriptedSource(CONTENT), CONTENT))
        while not store.writes.is_set():  # noqa: ASYNC110 - a thread's
            await asyncio.sleep(0)
        store.may_write.set()
        assert store.has_published.wait(10)  # the loop stands still: nobody was told of the verdict
        await bench.cache.close()
        with contextlib.suppress(Unavailable):  # the verdict, or the stop: whichever came first
            await reading.task
        assert list(store.kept) == [Digest.of(CONTENT)]
        assert await bench.index.has(key_of(CONTENT))


@pytest.mark.parametrize(
    "answers",
    [
        [CHUNKED],
        [Answer(cut_at=50_000), Answer(content=LONGER, total=len(CONTENT)), CHUNKED],
    ],
    ids=["chunked", "resumed"],
)
async def test_what_is_longer_is_refused_though_it_begins_well(
    tmp_path: Path, answers: list[Answer]
) -> None:
    store = MemoryStore()
    async with open_cache(tmp_path, store=store) as bench:
        reading = Reading(await get(bench, ScriptedSource(CONTENT, *answers), CONTENT))
        with pytest.raises((Integrity, Unavailable)):
            await reading.task
        await idle(bench)
        assert not store.kept
