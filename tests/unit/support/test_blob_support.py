"""The scriptable source does what it is told; the fake store passes the contract suite elsewhere."""

import asyncio

import pytest

from facade.errors import Unavailable, Upstream
from tests.support.blob_source import Answer, ScriptedSource, broken
from tests.support.blob_store import MemoryStore
from tests.support.blobs import CountingObserver, key_of, make_content

CONTENT = make_content(200_000)


async def fetch(
    source: ScriptedSource,
    offset: int = 0,
    etag: str | None = None,
    into: bytearray | None = None,
) -> bytes:
    got = bytearray() if into is None else into
    async with source.open(offset, etag) as body:
        async for chunk in body.chunks():
            got += chunk
    return bytes(got)


async def test_a_plain_answer_honours_the_range_and_is_noted() -> None:
    source = ScriptedSource(CONTENT)
    assert await fetch(source, 5, '"e"') == CONTENT[5:]
    assert source.opened == [(5, '"e"')]
    assert source.running == 0


async def test_a_range_may_be_ignored_or_answered_wrongly() -> None:
    source = ScriptedSource(CONTENT, Answer(ignore_range=True), Answer(from_offset=9))
    async with source.open(5, None) as body:
        assert body.offset == 0
    async with source.open(5, None) as body:
        assert body.offset == 9


@pytest.mark.parametrize("cut_at", [0, 1, 65_536, 199_999])
async def test_a_cut_comes_exactly_there(cut_at: int) -> None:
    source = ScriptedSource(CONTENT, Answer(cut_at=cut_at))
    got = bytearray()
    with pytest.raises(Upstream):
        await fetch(source, into=got)
    assert bytes(got) == CONTENT[:cut_at]


async def test_nothing_passes_a_shut_gate() -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={1000: gate}))
    got = bytearray()
    task = asyncio.create_task(fetch(source, into=got))
    await asyncio.sleep(0.01)
    assert bytes(got) == CONTENT[:1000]
    gate.set()
    await task
    assert bytes(got) == CONTENT


async def test_totals_refusals_and_confirmations() -> None:
    source = ScriptedSource(CONTENT, Answer(total=None), Answer(total=5), Answer(refuse=broken()))
    async with source.open(0, None) as body:
        assert body.total is None
    async with source.open(0, None) as body:
        assert body.total == 5
    with pytest.raises(Upstream):
        await fetch(source)
    assert await source.confirm() == len(CONTENT)
    assert await ScriptedSource(CONTENT, has=False).confirm() is None
    assert await ScriptedSource(CONTENT, has=7).confirm() == 7
    assert source.confirmed == 1


async def test_the_fake_store_is_full_when_told() -> None:
    store = MemoryStore(capacity=10, can_publish=False)
    ingest = await store.ingest(key_of(CONTENT), len(CONTENT), lambda _: None)
    ingest.write(memoryview(bytes(10)))
    with pytest.raises(Unavailable):
        ingest.write(memoryview(b"x"))
    with pytest.raises(Unavailable):
        ingest.publish()
    assert store.used() == 10


def test_the_observer_counts() -> None:
    observer = CountingObserver()
    observer.hit("h")
    observer.evicted(1, 2)
    assert observer.count("hit") == 1
    assert observer.seen[-1] == ("evicted", 1, 2)
