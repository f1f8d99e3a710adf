"""A process that follows while the writer begins anew, before it has looked again: it looks 4 to 50 times
a second, and its clock stands still here.
"""

import asyncio
import fcntl
import os
import resource
from pathlib import Path

import pytest

from facade.errors import Integrity, Unavailable, Upstream
from facade.reasons import Reason
from facade.serving.blobs.ingest import LocalIngest
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.partials import REPLACED_MODE, replace_partial
from facade.serving.blobs.sharing import MAX_FOLLOW_SECONDS, Gone
from facade.serving.blobs.tail import LocalTail
from tests.support.blob_source import ScriptedSource
from tests.support.blobs import (
    MEBI,
    Bench,
    LateStore,
    Reading,
    get,
    idle,
    key_of,
    make_content,
    open_cache,
    read_all,
    writer,
)
from tests.support.clock import FakeClock

CONTENT = make_content(3 * MEBI + 17)
SMALL = make_content(200_000)
KEY = key_of(CONTENT)
HOLDBACK = 64 * 1024
AHEAD = 2 * MEBI


async def spoiled(store: LocalStore, content: bytes, count: int) -> LocalIngest:
    """An ingest of `content` whose first `count` bytes are there, and wrong."""
    ingest = await store.ingest(key_of(content), len(content), lambda _: None)
    ingest.write(memoryview(bytes(count)))
    return ingest


async def ahead(other: Bench, clock: FakeClock, content: bytes, count: int) -> Reading:
    """A reader that has got `count` bytes through a follower, which rests."""
    reading = Reading(await get(other, ScriptedSource(b""), content))
    await reading.until(count)
    await clock.wait_for_sleepers()
    return reading


async def ended(bench: Bench, clock: FakeClock) -> None:
    """Return when no transfer is under way, letting time pass."""
    async with asyncio.timeout(10):
        while len(bench.cache.flights):
            await clock.run_for(MAX_FOLLOW_SECONDS)
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("content", "count"),
    [(CONTENT, AHEAD), (CONTENT, AHEAD + 100_000), (SMALL, 100_000)],
    ids=["whole blocks", "part of one in memory", "all in memory"],
)
async def test_who_asks_after_a_restart_gets_the_new_bytes_at_once(
    tmp_path: Path, content: bytes, count: int
) -> None:
    clock = FakeClock()
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=clock) as other:
        ingest = await spoiled(store, content, count)
        before = await ahead(other, clock, content, count)
        ingest.restart()
        ingest.write(memoryview(content))
        fresh = Reading(await get(other, ScriptedSource(b""), content))
        inside = Reading(await get(other, ScriptedSource(b""), content), count - 1000, count)
        await fresh.until(len(content) - HOLDBACK)
        with pytest.raises(Unavailable, match="fetched again"):
            await before.task
        ingest.publish()
        await ended(other, clock)
        await asyncio.gather(fresh.task, inside.task)
        assert bytes(fresh.got) == content
        assert bytes(inside.got) == content[count - 1000 : count]
        assert other.observer.count("integrity_failed") == 0
        await ingest.close(keep=False)


async def test_what_was_published_before_the_follower_looked_is_no_mismatch(tmp_path: Path) -> None:
    clock, source = FakeClock(), ScriptedSource(CONTENT)
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=clock) as other:
        ingest = await spoiled(store, CONTENT, AHEAD)
        waiting = Reading(await get(other, source, CONTENT), len(CONTENT) - 1000)
        before = await ahead(other, clock, CONTENT, AHEAD)
        ingest.restart()
        ingest.write(memoryview(CONTENT))
        ingest.publish()
        await ingest.close(keep=False)
        fresh = Reading(await get(other, source, CONTENT))
        await asyncio.gather(fresh.task, waiting.task)
        assert bytes(fresh.got) == CONTENT
        assert bytes(waiting.got) == CONTENT[-1000:]
        with pytest.raises(Unavailable, match="fetched again"):
            await before.task
        await idle(other)
        assert await read_all(await get(other, source, CONTENT)) == CONTENT
        assert other.observer.count("integrity_failed") == 0
        assert source.opened == []
        assert list((tmp_path / "ingest").iterdir()) == []


async def test_a_restart_that_the_disk_then_refused_is_no_mismatch(tmp_path: Path) -> None:
    """The new file is gone when the follower looks, and nothing was published: it fetches itself."""
    clock, own = FakeClock(), ScriptedSource(CONTENT)
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=clock) as other:
        ingest = await spoiled(store, CONTENT, AHEAD)
        waiting = Reading(await get(other, own, CONTENT), len(CONTENT) - 1000)
        before = await ahead(other, clock, CONTENT, AHEAD)
        ingest.restart()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEBI, limit[1]))
        try:
            with pytest.raises(Unavailable):
                ingest.write(memoryview(CONTENT))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        await ended(other, clock)
        await waiting.task
        assert waiting.got == CONTENT[-1000:]
        assert own.opened == [(0, None)]
        with pytest.raises(Unavailable, match="fetched again"):
            await before.task
        assert other.observer.count("integrity_failed") == 0
        await ingest.close(keep=False)


async def test_a_reader_behind_learns_at_once_that_the_writer_gave_up(tmp_path: Path) -> None:
    clock = FakeClock()
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=clock) as other:
        ingest = await spoiled(store, CONTENT, AHEAD)
        before = await ahead(other, clock, CONTENT, AHEAD)
        await ingest.close(keep=False)
        fresh = Reading(await get(other, ScriptedSource(b""), CONTENT))
        for each in (fresh, before):
            with pytest.raises(Integrity, match="did not match"):
                await each.task
        assert not fresh.got
        await idle(other)
        assert other.observer.count("integrity_failed") == 1


async def followed(store: LocalStore, ingest: LocalIngest) -> LocalTail:
    """All that is there so far, taken in by a follower."""
    tail = await store.follow(KEY, len(CONTENT))
    assert tail is not None
    while tail.have < ingest.have:
        assert await tail.advance() is None
    assert await tail.advance() is None
    return tail


def dies(ingest: LocalIngest) -> None:
    """As the kernel does it: the lock goes, nothing else happens."""
    os.close(ingest._fd)
    ingest._fd = -1


@pytest.mark.parametrize(
    ("step", "ending"),
    [
        ("before it", "left"),
        ("marked", "left"),
        ("renamed", "restarted"),
        ("cut", "restarted"),
        ("done", "restarted"),
        ("gone on", "restarted"),
    ],
)
async def test_a_writer_that_dies_in_the_middle_of_a_restart_is_succeeded(
    tmp_path: Path, step: str, ending: str
) -> None:
    """Whatever it had come to: a follower takes over or begins, and raises no alarm."""
    clock, own = FakeClock(), ScriptedSource(CONTENT)
    async with writer(tmp_path) as store, open_cache(tmp_path, clock=clock) as other:
        ingest = await spoiled(store, CONTENT, AHEAD)
        tail = await followed(store, ingest)
        waiting = Reading(await get(other, own, CONTENT), len(CONTENT) - 1000)
        await clock.wait_for_sleepers()
        (path,) = (tmp_path / "ingest").iterdir()
        if step == "marked":
            os.fchmod(ingest._fd, REPLACED_MODE)
        elif step in ("renamed", "cut"):
            os.close(replace_partial(path, ingest._fd))
            if step == "cut":
                os.ftruncate(ingest._fd, 0)
        elif step in ("done", "gone on"):
            ingest.restart()
            if step == "gone on":
                ingest.write(memoryview(CONTENT)[:MEBI])
        dies(ingest)
        seen = await tail.advance()
        assert seen == ending
        await tail.close(keep=True)
        await ended(other, clock)
        await waiting.task
        assert waiting.got == CONTENT[-1000:]
        assert other.observer.count("integrity_failed") == 0
        begun = {"left": [(AHEAD, None), (0, None)], "restarted": [(0, None)]}[ending]
        assert own.opened == ([(MEBI, None)] if step == "gone on" else begun)
        assert await read_all(await get(other, own, CONTENT)) == CONTENT
        store.partials.release(path)
        await ingest.close(keep=True)


async def test_who_read_wrong_bytes_is_told_so_though_others_began_the_same_again(
    tmp_path: Path,
) -> None:
    async with writer(tmp_path) as store:
        ingest = await spoiled(store, CONTENT, AHEAD)
        tail = await followed(store, ingest)
        await ingest.close(keep=False)
        another = await store.ingest(KEY, len(CONTENT), lambda _: None)
        assert await tail.advance() == "void"
        await tail.close(keep=False)
        await another.close(keep=False)


async def test_what_is_read_of_a_cut_file_is_gone_until_it_is_known_why(tmp_path: Path) -> None:
    into = memoryview(bytearray(1000))
    async with writer(tmp_path) as store:
        ingest = await spoiled(store, CONTENT, AHEAD + 5000)
        tail = await followed(store, ingest)
        held = os.open(next((tmp_path / "ingest").iterdir()), os.O_RDONLY)
        assert await tail.read(into, AHEAD) == 1000
        ingest.restart()
        for offset in (0, AHEAD):  # the latter comes from memory
            with pytest.raises(Gone):
                await tail.read(into, offset)
        assert tail.cut.is_set()
        fcntl.flock(held, fcntl.LOCK_EX)
        assert await tail.advance() is None  # not before the lock is free
        with pytest.raises(Gone):
            await tail.read(into, 0)
        os.close(held)
        assert await tail.advance() == "restarted"
        with pytest.raises(Integrity) as found:
            await tail.read(into, 0)
        assert not isinstance(found.value, Gone)
        await tail.close(keep=False)
        await ingest.close(keep=False)


async def test_who_goes_on_alone_does_not_wait_for_why_bytes_are_gone(tmp_path: Path) -> None:
    """The writer brought nothing for long; the bytes that it had written are read on without it."""
    async with writer(tmp_path) as store:
        ingest = await spoiled(store, CONTENT, AHEAD)
        tail = await followed(store, ingest)
        await tail.replay(lambda _: None)
        ingest.restart()
        with pytest.raises(Integrity) as found:
            await tail.read(memoryview(bytearray(1000)), 0)
        assert not isinstance(found.value, Gone)
        await tail.close(keep=False)
        await ingest.close(keep=False)


async def test_a_registry_that_does_not_confirm_leaves_no_partial_locked(tmp_path: Path) -> None:
    """Another process published it after we had looked for it; then whose it is is asked, and refused."""
    refusal = Upstream("ghcr.io does not have it.", reason=Reason.UPSTREAM_NOT_FOUND, status=404)

    class Refusing(ScriptedSource):
        async def confirm(self) -> int | None:
            raise refusal

    async with writer(tmp_path) as store:
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(CONTENT))
        ingest.publish()
        await ingest.close(keep=False)
        async with open_cache(tmp_path, store=LateStore(store)) as other:
            with pytest.raises(Upstream, match="does not have it"):
                await read_all(await get(other, Refusing(CONTENT), CONTENT))
            await idle(other)
        again = await store.ingest(KEY, len(CONTENT), lambda _: None)
        await again.close(keep=False)
        assert list((tmp_path / "ingest").iterdir()) == []
