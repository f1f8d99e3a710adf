"""Upstreams that cut and lie, and a disk that forgets: what readers and the cache make of it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.port import BLOCK_BYTES
from facade.serving.blobs.sidecars import ATTRIBUTE
from tests.support.blob_source import Answer, ScriptedSource, broken
from tests.support.blobs import (
    MEBI,
    get,
    idle,
    key_of,
    make_content,
    make_executor,
    open_cache,
    read_all,
)

CONTENT = make_content(4 * MEBI + 1234)
SIZE = len(CONTENT)
DIGEST = Digest.of(CONTENT)
TENTHS = [SIZE * tenth // 10 for tenth in range(11)]


def blob_path(root: Path) -> Path:
    return root / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("cut_at", TENTHS)
async def test_a_transfer_cut_at_every_tenth_is_hidden(tmp_path: Path, cut_at: int) -> None:
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT, Answer(cut_at=cut_at, etag='"e"'))
        streams = [await get(bench, source, CONTENT) for _ in range(3)]
        assert await asyncio.gather(*map(read_all, streams)) == [CONTENT] * 3
        await idle(bench)
        stored = await get(bench, source, CONTENT)
        assert stored.outcome == "hit"
        assert await read_all(stored) == CONTENT


async def test_a_transfer_cut_at_every_tenth_in_a_row_is_hidden(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT, *(Answer(cut_at=cut) for cut in TENTHS))
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
        assert [offset for offset, _ in source.opened] == [0, *TENTHS[:-1]]


@pytest.mark.parametrize("position", [0, SIZE // 2, SIZE - 1])
@pytest.mark.parametrize("total", [SIZE, None])
async def test_a_wrong_byte_is_never_completed_nor_cached(
    tmp_path: Path, position: int, total: int | None
) -> None:
    wrong = bytearray(CONTENT)
    wrong[position] ^= 1
    async with open_cache(tmp_path) as bench:
        source = ScriptedSource(CONTENT, Answer(content=bytes(wrong), total=total))
        streams = [await get(bench, source, CONTENT) for _ in range(3)]
        results = await asyncio.gather(*map(read_all, streams), return_exceptions=True)
        assert [type(result) for result in results] == [Integrity] * 3
        await idle(bench)
        assert list(bench.store.objects()) == []
        assert list((tmp_path / "ingest").iterdir()) == []


def truncate_inside_a_block(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(SIZE - 1)


def truncate_at_a_block(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(2 * BLOCK_BYTES)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("harm", [truncate_inside_a_block, truncate_at_a_block, empty, append])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_cache_file_of_a_wrong_length_is_quarantined_and_fetched_again(
    tmp_path: Path, harm: Callable[[Path], None], restart: bool
) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        await read_all(await get(bench, source, CONTENT))
        await idle(bench)
        if not restart:
            harm(blob_path(tmp_path))
            again = await get(bench, source, CONTENT)
            assert again.outcome == "miss"
            assert await read_all(again) == CONTENT
            return
    harm(blob_path(tmp_path))
    async with open_cache(tmp_path) as bench:
        again = await get(bench, source, CONTENT)
        assert again.outcome == "miss"
        assert await read_all(again) == CONTENT
    assert (tmp_path / "quarantine" / f"sha256-{DIGEST.hex}").exists()


async def test_a_cache_file_cut_while_it_is_read_cuts_the_answer(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        await read_all(await get(bench, source, CONTENT))
        await idle(bench)
        stream = await get(bench, source, CONTENT)
        reading = aiter(stream.chunks())
        await anext(reading)
        truncate_at_a_block(blob_path(tmp_path))
        await anext(reading)
        with pytest.raises(Integrity, match="cut short"):
            await anext(reading)
        await stream.aclose()
        assert (await get(bench, source, CONTENT)).outcome == "miss"


async def test_a_cache_file_removed_while_it_is_read_is_read_to_its_end(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        await read_all(await get(bench, source, CONTENT))
        await idle(bench)
        stream = await get(bench, source, CONTENT)
        reading = aiter(stream.chunks())
        got = bytes(await anext(reading))
        blob_path(tmp_path).unlink()
        async for view in reading:
            got += view
        await stream.aclose()
        assert got == CONTENT
        again = await get(bench, source, CONTENT)
        assert again.outcome == "miss"
        assert await read_all(again) == CONTENT


class OnFile:
    """Block tags on the object's own file."""

    attributes = True

    def __init__(self, root: Path) -> None:
        self._path = blob_path(root)

    def flip(self, offset: int) -> None:
        tags = bytearray(os.getxattr(self._path, ATTRIBUTE))
        tags[offset] ^= 1
        os.setxattr(self._path, ATTRIBUTE, tags)

    def delete(self) -> None:
        os.removexattr(self._path, ATTRIBUTE)


class Beside:
    """In a file beside it."""

    attributes = False

    def __init__(self, root: Path) -> None:
        self._path = blob_path(root).with_name(f"{DIGEST.hex}.tags")

    def flip(self, offset: int) -> None:
        flip(self._path, offset % self._path.stat().st_size)

    def delete(self) -> None:
        self._path.unlink()


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("kind", [OnFile, Beside])
async def test_a_flipped_bit_in_a_tag_is_never_taken_for_good(
    tmp_path: Path, kind: type[OnFile | Beside], restart: bool
) -> None:
    """Open objects have their tags in memory; a restart finds the changed one on reading."""
    source = ScriptedSource(CONTENT)
    tags = kind(tmp_path)
    async with open_cache(tmp_path, attributes=kind.attributes) as bench:
        await read_all(await get(bench, source, CONTENT))
        await idle(bench)
        if not restart:
            assert await read_all(await get(bench, source, CONTENT)) == CONTENT
            tags.flip(-1)
            assert await read_all(await get(bench, source, CONTENT)) == CONTENT
            return
    tags.flip(-1)
    async with open_cache(tmp_path, attributes=kind.attributes) as bench:
        with pytest.raises(Integrity):
            await read_all(await get(bench, source, CONTENT))
        again = await get(bench, source, CONTENT)
        assert again.outcome == "miss"
        assert await read_all(again) == CONTENT


def flip_head(tags: OnFile | Beside) -> None:
    tags.flip(20)


def delete(tags: OnFile | Beside) -> None:
    tags.delete()


@pytest.mark.parametrize("harm", [flip_head, delete])
@pytest.mark.parametrize("kind", [OnFile, Beside])
async def test_lost_tags_cost_a_rehash_and_no_request(
    tmp_path: Path, kind: type[OnFile | Beside], harm: Callable[[OnFile | Beside], None]
) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path, attributes=kind.attributes) as bench:
        await read_all(await get(bench, source, CONTENT))
    harm(kind(tmp_path))
    for _ in range(2):
        async with open_cache(tmp_path, attributes=kind.attributes) as bench:
            stored = await get(bench, source, CONTENT)
            assert stored.outcome == "hit"
            assert await read_all(stored) == CONTENT
    assert len(source.opened) == 1
    kind(tmp_path).delete()  # they were made anew, in their place


async def test_a_lost_node_key_costs_a_rehash_which_finds_changed_bytes(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        await read_all(await get(bench, source, CONTENT))
    (tmp_path / "node.key").unlink()
    async with open_cache(tmp_path) as bench:
        assert await read_all(await get(bench, source, CONTENT)) == CONTENT
    (tmp_path / "node.key").unlink()
    flip(blob_path(tmp_path), SIZE // 2)
    async with open_cache(tmp_path) as bench:
        again = await get(bench, source, CONTENT)
        assert again.outcome == "miss"
        assert await read_all(again) == CONTENT


async def test_a_file_put_into_the_cache_by_hand_is_not_served_unhashed(tmp_path: Path) -> None:
    with make_executor() as executor:
        store = LocalStore.at(tmp_path, executor)
        path = blob_path(tmp_path)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not this")
        assert await store.open(DIGEST) is None
        assert not path.exists()


async def test_bytes_changed_on_disk_while_they_come_reach_no_reader(tmp_path: Path) -> None:
    gate = asyncio.Event()
    content = make_content(7 * MEBI)  # its first blocks are in memory no more when they change
    source = ScriptedSource(content, Answer(gates={6 * MEBI: gate}))
    async with open_cache(tmp_path) as bench:
        stream = await get(bench, source, content)
        other = aiter(stream.chunks())
        count = 0
        while count < 6 * MEBI:
            count += len(await anext(other))
        (partial,) = (tmp_path / "ingest").iterdir()
        flip(partial, BLOCK_BYTES + 5)
        late = await get(bench, source, content)
        reading = aiter(late.chunks())
        assert bytes(await anext(reading)) == content[:BLOCK_BYTES]
        with pytest.raises(Integrity):
            await anext(reading)
        await late.aclose()
        await stream.aclose()


async def test_a_whole_upstream_outage_leaves_what_is_cached_served(tmp_path: Path) -> None:
    async with open_cache(tmp_path) as bench:
        await read_all(await get(bench, ScriptedSource(CONTENT), CONTENT))
        await idle(bench)
        down = ScriptedSource(b"", *[Answer(refuse=broken())] * 5)
        for _ in range(3):
            assert await read_all(await get(bench, down, CONTENT)) == CONTENT
        assert key_of(CONTENT).digest == DIGEST
        assert down.opened == []
