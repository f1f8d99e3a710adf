"""What every `BlobStore` must do, tried on the local disk and on the fake in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from facade.errors import Integrity, Unavailable
from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.port import BLOCK_BYTES, BlobReader, BlobStore, HotStore, Ingest
from tests.support.blob_store import MemoryStore
from tests.support.blobs import HOST, key_of, make_content, make_executor

CONTENT = make_content(2 * BLOCK_BYTES + 1000)
KEY = key_of(CONTENT)


class Rig(Protocol):
    """A store, and how to harm what it keeps."""

    store: HotStore

    def flip(self, offset: int) -> None: ...


class LocalRig:
    def __init__(self, store: LocalStore, root: Path) -> None:
        self.store: HotStore = store
        self._root = root

    def flip(self, offset: int) -> None:
        digest = KEY.digest
        path = self._root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
        with path.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1]))


class MemoryRig:
    def __init__(self, store: MemoryStore) -> None:
        self.store: HotStore = store
        self._memory = store

    def flip(self, offset: int) -> None:
        self._memory.flip(KEY.digest, offset)


@pytest.fixture(params=["local", "local-threads", "local-files", "memory"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    if request.param == "memory":
        yield MemoryRig(MemoryStore())
        return
    with make_executor() as executor:
        kind: str = request.param
        store = LocalStore.at(
            tmp_path,
            executor,
            nowait=kind != "local-threads",
            attributes=kind != "local-files",
        )
        yield LocalRig(store, tmp_path)
        store.close()


def ignore(_: memoryview) -> None:
    """A feed that nobody needs."""


async def begin(store: BlobStore, size: int = len(CONTENT)) -> Ingest:
    return await store.ingest(KEY, size, ignore)


async def publish(store: BlobStore) -> None:
    ingest = await begin(store)
    ingest.write(memoryview(CONTENT))
    ingest.publish()
    await ingest.close(keep=False)


async def opened(store: BlobStore) -> BlobReader:
    reader = await store.open(KEY.digest)
    assert reader is not None
    return reader


async def read_object(reader: BlobReader) -> bytes:
    data = b""
    while len(data) < reader.size:
        view = await reader.read(len(data), reader.size - len(data))
        assert 0 < len(view) <= BLOCK_BYTES
        data += view
    return data


async def test_what_was_published_is_found_with_size_and_origin(rig: Rig) -> None:
    await publish(rig.store)
    reader = await opened(rig.store)
    assert (reader.size, reader.origin) == (len(CONTENT), str(HOST))
    assert await read_object(reader) == CONTENT
    reader.close()
    reader.close()


async def test_what_was_never_published_is_not_found(rig: Rig) -> None:
    assert await rig.store.open(KEY.digest) is None
    ingest = await begin(rig.store)
    ingest.write(memoryview(CONTENT))
    assert await rig.store.open(KEY.digest) is None
    await ingest.close(keep=True)
    assert await rig.store.open(KEY.digest) is None


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, 10, 10),
        (5, BLOCK_BYTES, BLOCK_BYTES - 5),
        (BLOCK_BYTES - 1, 10, 1),
        (BLOCK_BYTES, BLOCK_BYTES, BLOCK_BYTES),
        (2 * BLOCK_BYTES + 990, 100, 10),
    ],
)
async def test_a_read_ends_with_its_block(
    rig: Rig, offset: int, length: int, expected: int
) -> None:
    await publish(rig.store)
    reader = await opened(rig.store)
    view = await reader.read(offset, length)
    assert bytes(view) == CONTENT[offset : offset + expected]
    reader.close()


async def test_what_is_read_at_once_is_what_is_read(rig: Rig) -> None:
    assert rig.store.opened(KEY.digest) is None
    await publish(rig.store)
    waiting = await opened(rig.store)
    assert await read_object(waiting) == CONTENT
    reader = rig.store.opened(KEY.digest)
    assert reader is not None
    for offset, length in ((0, BLOCK_BYTES), (5, BLOCK_BYTES), (2 * BLOCK_BYTES + 990, 100)):
        view = reader.read_now(offset, length)
        if view is not None:  # else it has to be waited for, and may always have to
            assert bytes(view) == bytes(await waiting.read(offset, length))
    assert await rig.store.remove(KEY.digest) is None
    waiting.close()
    reader.close()
    assert await rig.store.remove(KEY.digest) == len(CONTENT)
    assert rig.store.opened(KEY.digest) is None


async def test_a_changed_block_is_not_read_at_once_either(rig: Rig) -> None:
    await publish(rig.store)
    reader = await opened(rig.store)
    rig.flip(BLOCK_BYTES)
    try:
        view = reader.read_now(BLOCK_BYTES, 10)
    except Integrity:
        view = None
    assert view is None
    reader.close()


async def test_two_readers_at_once_have_bytes_of_their_own(rig: Rig) -> None:
    await publish(rig.store)
    one, other = await asyncio.gather(opened(rig.store), opened(rig.store))
    first = await one.read(0, BLOCK_BYTES)
    await other.read(BLOCK_BYTES, BLOCK_BYTES)
    assert bytes(first) == CONTENT[:BLOCK_BYTES]
    one.close()
    assert await read_object(other) == CONTENT
    other.close()


@pytest.mark.parametrize("offset", [0, BLOCK_BYTES, len(CONTENT) - 1])
async def test_a_flipped_bit_is_not_served(rig: Rig, offset: int) -> None:
    await publish(rig.store)
    rig.flip(offset)
    reader = await opened(rig.store)
    with pytest.raises(Integrity):
        await reader.read(offset, 1)
    reader.close()


async def test_what_is_quarantined_is_gone_and_may_come_again(rig: Rig) -> None:
    await publish(rig.store)
    await rig.store.quarantine(KEY.digest)
    await rig.store.quarantine(KEY.digest)
    assert await rig.store.open(KEY.digest) is None
    await publish(rig.store)
    (await opened(rig.store)).close()


async def test_an_object_in_use_is_not_removed(rig: Rig) -> None:
    await publish(rig.store)
    reader = await opened(rig.store)
    assert await rig.store.remove(KEY.digest) is None
    assert await read_object(reader) == CONTENT
    reader.close()
    assert await rig.store.remove(KEY.digest) == len(CONTENT)
    assert await rig.store.remove(KEY.digest) is None
    assert await rig.store.open(KEY.digest) is None


async def test_objects_are_listed_without_partials(rig: Rig) -> None:
    assert list(rig.store.objects()) == []
    await publish(rig.store)
    ingest = await begin(rig.store)
    ingest.write(memoryview(b"x"))
    assert list(rig.store.objects()) == [(KEY.digest, len(CONTENT))]
    await ingest.close(keep=True)


async def test_bytes_on_their_way_can_be_read_up_to_a_blocks_end(rig: Rig) -> None:
    ingest = await begin(rig.store)
    ingest.write(memoryview(CONTENT)[:300_000])
    assert ingest.have == 300_000
    into = memoryview(bytearray(BLOCK_BYTES))
    assert await ingest.read(into, 0) == BLOCK_BYTES
    assert bytes(into) == CONTENT[:BLOCK_BYTES]
    assert await ingest.read(into, BLOCK_BYTES) == 300_000 - BLOCK_BYTES
    assert bytes(into[:10]) == CONTENT[BLOCK_BYTES : BLOCK_BYTES + 10]
    assert await ingest.read(into[:5], 7) == 5
    with pytest.raises(Integrity):
        await ingest.read(into, 300_000)
    ingest.write(memoryview(CONTENT)[300_000:])
    ingest.publish()
    assert await ingest.read(into, BLOCK_BYTES) == BLOCK_BYTES
    assert bytes(into) == CONTENT[BLOCK_BYTES : 2 * BLOCK_BYTES]
    await ingest.close(keep=False)


async def test_kept_bytes_are_told_again_when_it_is_resumed(rig: Rig) -> None:
    ingest = await begin(rig.store)
    ingest.write(memoryview(CONTENT)[:300_000])
    await ingest.close(keep=True)
    told = bytearray()
    ingest = await rig.store.ingest(KEY, len(CONTENT), told.extend)
    assert bytes(told) == CONTENT[:300_000]
    assert ingest.have == 300_000
    ingest.write(memoryview(CONTENT)[300_000:])
    ingest.publish()
    await ingest.close(keep=False)
    reader = await opened(rig.store)
    assert await read_object(reader) == CONTENT
    reader.close()


@pytest.mark.parametrize("keep", [False, True])
async def test_nothing_is_kept_unless_asked_for(rig: Rig, keep: bool) -> None:
    ingest = await begin(rig.store)
    ingest.write(memoryview(CONTENT)[:100])
    await ingest.close(keep=keep)
    ingest = await begin(rig.store)
    assert ingest.have == (100 if keep else 0)
    await ingest.close(keep=False)


async def test_a_partial_longer_than_the_blob_is_forgotten(rig: Rig) -> None:
    ingest = await begin(rig.store)
    ingest.write(memoryview(CONTENT)[:100])
    await ingest.close(keep=True)
    ingest = await begin(rig.store, size=99)
    assert ingest.have == 0
    await ingest.close(keep=False)


async def test_restart_forgets_all_bytes(rig: Rig) -> None:
    ingest = await begin(rig.store)
    ingest.write(memoryview(b"wrong" * BLOCK_BYTES))
    ingest.restart()
    assert ingest.have == 0
    ingest.write(memoryview(CONTENT))
    ingest.publish()
    await ingest.close(keep=False)
    reader = await opened(rig.store)
    assert await read_object(reader) == CONTENT
    reader.close()


async def test_one_writer_per_key(rig: Rig) -> None:
    ingest = await begin(rig.store)
    with pytest.raises(Unavailable):
        await begin(rig.store)
    await ingest.close(keep=False)
    await (await begin(rig.store)).close(keep=False)


async def test_an_empty_object(rig: Rig) -> None:
    key = key_of(b"")
    ingest = await rig.store.ingest(key, 0, ignore)
    ingest.publish()
    await ingest.close(keep=False)
    reader = await rig.store.open(key.digest)
    assert reader is not None
    assert reader.size == 0
    reader.close()


async def test_publishing_again_changes_nothing(rig: Rig) -> None:
    await publish(rig.store)
    reader = await opened(rig.store)
    await publish(rig.store)
    assert await read_object(reader) == CONTENT
    reader.close()
    reader = await opened(rig.store)
    assert await read_object(reader) == CONTENT
    reader.close()


async def test_what_is_not_there_is_begun_by_whoever_looks_for_it(rig: Rig) -> None:
    reader, begun = await rig.store.find(KEY, len(CONTENT))
    assert reader is None
    assert begun is not None
    assert not begun.superseded
    with pytest.raises(Unavailable):
        await begin(rig.store)
    assert await rig.store.find(KEY, len(CONTENT)) == (None, None)
    begun.write(memoryview(CONTENT))
    begun.publish()
    await begun.close(keep=False)
    reader, begun = await rig.store.find(KEY, len(CONTENT))
    assert begun is None
    assert reader is not None
    assert await read_object(reader) == CONTENT
    reader.close()


async def test_what_was_left_half_way_is_not_begun(rig: Rig) -> None:
    ingest = await begin(rig.store)
    ingest.write(memoryview(CONTENT)[:100])
    await ingest.close(keep=True)
    assert await rig.store.find(KEY, len(CONTENT)) == (None, None)
    ingest = await begin(rig.store)
    assert ingest.have == 100
    await ingest.close(keep=False)
