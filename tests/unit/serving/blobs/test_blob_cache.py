"""Hit, join or start; and whose content it is."""

import asyncio
import fcntl
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from facade.errors import Integrity, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.serving.blobs.port import BLOCK_BYTES, BlobKey, BlobStream
from facade.upstream.connection import Connection
from tests.support.blob_source import Answer, ScriptedSource, broken
from tests.support.blob_store import MemoryStore
from tests.support.blobs import (
    CONNECTION,
    HOST,
    MEBI,
    REPOSITORY,
    Bench,
    get,
    idle,
    make_content,
    open_cache,
    read_all,
)

CONTENT = make_content(MEBI)
DIGEST = Digest.of(CONTENT)
OTHER_REGISTRY = Connection(id="c2", host=RegistryHost.parse("quay.io"), provider="static")
OTHER_REPOSITORY = Repository.parse("org/other")
PRIVATE = Repository.parse("secret/layers")


async def ask(
    bench: Bench,
    source: ScriptedSource,
    connection: Connection = CONNECTION,
    repository: Repository = REPOSITORY,
    size: int = len(CONTENT),
) -> BlobStream:
    return await bench.cache.get(connection, repository, DIGEST, size, source)


async def fill(bench: Bench, connection: Connection, repository: Repository) -> None:
    stream = await ask(bench, ScriptedSource(CONTENT), connection, repository)
    assert await read_all(stream) == CONTENT
    await idle(bench)


def file_of(root: Path) -> Path:
    (found,) = root.glob(f"blobs/sha256/*/{DIGEST.hex}")
    return found


def lose_index(root: Path) -> None:
    for path in root.glob("index.db*"):
        path.unlink()


async def test_a_private_layer_of_another_registry_named_in_my_manifest(tmp_path: Path) -> None:
    """It is in the cache, I know its digest and size, and get nothing without my registry."""
    async with open_cache(tmp_path) as bench:
        await fill(bench, OTHER_REGISTRY, PRIVATE)
        missing = Upstream("No such blob.", reason=Reason.UPSTREAM_NOT_FOUND, status=404)
        mine = ScriptedSource(b"", Answer(refuse=missing), has=True)
        with pytest.raises(Upstream):
            await read_all(await ask(bench, mine))
        # Not even a HEAD: a registry cannot vouch for what came from another one.
        assert mine.confirmed == 0
        assert mine.opened == [(0, None)]


async def test_a_private_layer_with_a_wrong_size_tells_nothing_either(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, OTHER_REGISTRY, PRIVATE)
        mine = ScriptedSource(b"", Answer(refuse=broken()))
        with pytest.raises(Upstream):
            await read_all(await ask(bench, mine, size=5))


async def test_the_same_registry_is_asked_once_by_head(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, PRIVATE)
        mine = ScriptedSource(CONTENT)
        streams = await asyncio.gather(*(ask(bench, mine) for _ in range(8)))
        assert [stream.outcome for stream in streams] == ["hit"] * 8
        assert [await read_all(stream) for stream in streams] == [CONTENT] * 8
        assert await read_all(await ask(bench, mine)) == CONTENT
        assert (mine.confirmed, mine.opened) == (1, [])


@pytest.mark.parametrize("says", [False, 5])
async def test_a_registry_that_does_not_confirm_is_asked_for_the_bytes(
    tmp_path: Path, says: int | bool
) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, PRIVATE)
        mine = ScriptedSource(CONTENT, Answer(refuse=broken()), has=says)
        with pytest.raises(Upstream):
            await read_all(await ask(bench, mine))
        assert (mine.confirmed, len(mine.opened)) == (1, 1)


async def test_a_registry_that_cannot_be_asked_is_no_confirmation(tmp_path: Path) -> None:
    class Down(ScriptedSource):
        async def confirm(self) -> int | None:
            raise broken()

    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, PRIVATE)
        with pytest.raises(Upstream):
            await ask(bench, Down(CONTENT))
        # The repository that it came from needs nobody.
        assert (await ask(bench, Down(CONTENT), repository=PRIVATE)).outcome == "hit"


async def test_who_waits_for_a_confirmation_may_leave(tmp_path: Path) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedSource):
        async def confirm(self) -> int | None:
            self.confirmed += 1
            asked.set()
            await gate.wait()
            return len(self.content)

    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, PRIVATE)
        source = Slow(CONTENT)
        leader = asyncio.create_task(ask(bench, source))
        follower = asyncio.create_task(ask(bench, source))
        await asked.wait()
        leader.cancel()
        gate.set()
        stream = await follower
        assert stream.outcome == "hit"
        await stream.aclose()
        assert leader.cancelled()
        assert source.confirmed == 1
        assert await bench.store.remove(DIGEST) == len(CONTENT)


async def test_a_readded_connection_is_another_one(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        again = replace(CONNECTION, id="c9")
        source = ScriptedSource(CONTENT)
        assert await read_all(await ask(bench, source, again)) == CONTENT
        assert (source.confirmed, source.opened) == (1, [])


async def test_two_repositories_of_two_registries_fetch_at_once_without_meeting(
    tmp_path: Path,
) -> None:
    async with open_cache(tmp_path) as bench:
        one, other = ScriptedSource(CONTENT), ScriptedSource(CONTENT)
        streams = [await ask(bench, one), await ask(bench, other, OTHER_REGISTRY)]
        assert [stream.outcome for stream in streams] == ["miss", "miss"]
        assert await asyncio.gather(*map(read_all, streams)) == [CONTENT, CONTENT]
        await idle(bench)
        assert (await ask(bench, one)).outcome == "hit"
        assert (await ask(bench, other, OTHER_REGISTRY)).outcome == "hit"


async def test_losing_the_index_costs_a_head_and_never_trust(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
    lose_index(tmp_path)
    async with open_cache(tmp_path) as bench:
        stranger = ScriptedSource(b"", Answer(refuse=broken()))
        with pytest.raises(Upstream):
            await read_all(await ask(bench, stranger, OTHER_REGISTRY))
        assert stranger.confirmed == 0
        source = ScriptedSource(CONTENT)
        assert await read_all(await ask(bench, source)) == CONTENT
        assert (source.confirmed, source.opened) == (1, [])


async def test_possession_survives_a_restart(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
    async with open_cache(tmp_path) as bench:
        down = ScriptedSource(b"", Answer(refuse=broken()))
        assert await read_all(await ask(bench, down)) == CONTENT
        assert (down.confirmed, down.opened) == (0, [])


async def test_a_bad_block_cuts_the_answer_and_the_next_request_fetches(tmp_path: Path) -> None:
    content = make_content(3 * BLOCK_BYTES)
    digest = Digest.of(content)
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(content)
        await read_all(await get(bench, source, content))
        await idle(bench)
        path = tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
        with path.open("r+b") as file:
            file.seek(BLOCK_BYTES + 5)
            file.write(b"\0\0\0\0\0")
        stream = await get(bench, source, content)
        assert stream.outcome == "hit"
        reading = aiter(stream.chunks())
        assert bytes(await anext(reading)) == content[:BLOCK_BYTES]
        with pytest.raises(Integrity):
            await anext(reading)
        await stream.aclose()
        assert bench.observer.count("integrity_failed") == 1
        assert (tmp_path / "quarantine" / f"sha256-{digest.hex}").exists()
        again = await get(bench, source, content)
        assert again.outcome == "miss"
        assert await read_all(again) == content


async def test_another_size_than_the_stored_one_is_integrity(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        with pytest.raises(Integrity, match="announced"):
            await ask(bench, ScriptedSource(CONTENT), size=5)
        assert await bench.store.remove(DIGEST) == len(CONTENT)


async def test_a_manifest_at_hand_is_kept_for_its_repository(tmp_path: Path) -> None:
    content = b'{"schemaVersion": 2}'
    digest = Digest.of(content)
    down = ScriptedSource(b"", Answer(refuse=broken()), Answer(refuse=broken()))
    async with open_cache(tmp_path) as bench:
        for _ in range(2):
            assert await bench.cache.put(CONNECTION, REPOSITORY, digest, content)
        with pytest.raises(Integrity):
            await bench.cache.put(CONNECTION, REPOSITORY, digest, content + b" ")
        asked = (REPOSITORY, digest, len(content), down)
        assert await bench.cache.read(CONNECTION, *asked) == content
        with pytest.raises(Upstream):
            await bench.cache.read(OTHER_REGISTRY, *asked)
        assert len(down.opened) == 1


async def test_what_is_held_is_given_whole_to_who_proved_to_have_it_and_nobody_is_asked(
    tmp_path: Path,
) -> None:
    async with open_cache(tmp_path) as bench:
        held = bench.cache.held
        assert await held(CONNECTION, REPOSITORY, DIGEST, MEBI) is None
        await fill(bench, CONNECTION, REPOSITORY)
        assert await held(CONNECTION, REPOSITORY, DIGEST, MEBI) == CONTENT
        assert await held(CONNECTION, REPOSITORY, DIGEST, MEBI - 1) is None, "more than was asked"
        assert await held(CONNECTION, OTHER_REPOSITORY, DIGEST, MEBI) is None
        assert await held(OTHER_REGISTRY, REPOSITORY, DIGEST, MEBI) is None


async def test_what_is_held_and_does_not_match_is_set_aside(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        (path,) = (tmp_path / "blobs" / "sha256").rglob(DIGEST.hex)
        with path.open("r+b") as file:
            file.write(bytes(5))
        with pytest.raises(Integrity):
            await bench.cache.held(CONNECTION, REPOSITORY, DIGEST, MEBI)
        assert await bench.cache.held(CONNECTION, REPOSITORY, DIGEST, MEBI) is None
        assert bench.observer.count("integrity_failed") == 1


async def test_a_store_that_is_full_keeps_nothing_and_says_so(tmp_path: Path) -> None:
    content = b"a manifest"
    async with open_cache(tmp_path, store=MemoryStore(capacity=5)) as bench:
        kept = await bench.cache.put(CONNECTION, REPOSITORY, Digest.of(content), content)
        assert not kept
        source = ScriptedSource(CONTENT)
        assert not await bench.cache.fetch(CONNECTION, REPOSITORY, DIGEST, len(CONTENT), source)


async def test_an_index_that_fails_costs_a_request_and_never_trust(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
    async with open_cache(tmp_path) as bench:
        with sqlite3.connect(tmp_path / "index.db") as database:
            database.execute("DROP TABLE possession")
        database.close()
        with pytest.raises(Unavailable):
            await bench.index.at_registry(HOST, DIGEST)
        without = ScriptedSource(CONTENT, Answer(refuse=broken()), has=False)
        with pytest.raises(Upstream):
            await read_all(await ask(bench, without))
        assert without.confirmed == 1
        source = ScriptedSource(CONTENT)
        for _ in range(2):
            stream = await ask(bench, source)
            assert stream.outcome == "hit"
            assert await read_all(stream) == CONTENT
        assert (source.confirmed, source.opened) == (1, [])


def hot(
    bench: Bench, repository: Repository = REPOSITORY, size: int = len(CONTENT)
) -> BlobStream | None:
    return bench.cache.hot(CONNECTION, repository, DIGEST, size)


async def test_what_is_open_and_proven_is_had_without_waiting(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        assert hot(bench) is None  # not open yet
        assert await read_all(await ask(bench, ScriptedSource(CONTENT))) == CONTENT
        stream = hot(bench)
        assert stream is not None
        assert (stream.outcome, bench.observer.count("hit")) == ("hit", 2)
        assert await read_all(stream) == CONTENT
        again = hot(bench)
        assert again is not None
        assert await read_all(again, 5, 300_000) == CONTENT[5:300_000]


async def test_nothing_is_had_without_waiting_that_may_not_be(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        stream = await ask(bench, ScriptedSource(CONTENT))
        assert hot(bench, OTHER_REPOSITORY) is None
        assert hot(bench, size=len(CONTENT) - 1) is None
        assert hot(bench) is not None
        await bench.index.forget([DIGEST])
        assert hot(bench) is None
        await stream.aclose()


@pytest.mark.parametrize("in_first_block", [True, False])
async def test_a_spoiled_block_is_never_had_without_waiting(
    tmp_path: Path, in_first_block: bool
) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        await read_all(await ask(bench, ScriptedSource(CONTENT)))
        path = file_of(tmp_path)
        with path.open("r+b") as file:
            file.seek(0 if in_first_block else 3 * BLOCK_BYTES)
            file.write(bytes([CONTENT[0 if in_first_block else 3 * BLOCK_BYTES] ^ 1]))
        stream = hot(bench)
        if in_first_block:
            assert stream is None
            assert bench.observer.count("integrity_failed") == 0  # whoever may wait finds it
            assert await bench.store.remove(DIGEST) == len(CONTENT)  # nobody reads it
            return
        assert stream is not None
        with pytest.raises(Integrity):
            await read_all(stream)
        assert bench.observer.count("integrity_failed") == 1
        assert hot(bench) is None


async def test_an_object_in_the_middle_of_its_removal_is_not_had(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        await read_all(await ask(bench, ScriptedSource(CONTENT)))
        path = file_of(tmp_path)
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)  # as another process does before it removes it
            assert hot(bench) is None
        stream = hot(bench)
        assert stream is not None
        assert await bench.store.remove(DIGEST) is None  # it is in use
        await stream.aclose()
        path.unlink()
        assert hot(bench) is None


async def test_whoever_asks_for_what_is_under_way_joins_it(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await fill(bench, CONNECTION, REPOSITORY)
        await read_all(await ask(bench, ScriptedSource(CONTENT)))
        assert hot(bench) is not None
        key = BlobKey(CONNECTION.id, CONNECTION.host, REPOSITORY, DIGEST)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(
                bench.cache.flights.stream(key, len(CONTENT), ScriptedSource(CONTENT))
            )
            await asyncio.sleep(0)
            assert bench.cache.flights.is_running(key, len(CONTENT))
            assert hot(bench) is None
        await (await running).aclose()
        await idle(bench)
