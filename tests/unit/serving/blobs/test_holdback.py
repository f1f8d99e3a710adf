"""The end waits for the verdict, whatever was asked for."""

import asyncio
from pathlib import Path

import pytest

from facade.errors import Integrity
from facade.serving.blobs.limits import TransferLimits
from facade.serving.blobs.port import BlobStream
from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blobs import MEBI, get, idle, make_content, open_cache, read_all

HOLDBACK = 64 * 1024
CONTENT = make_content(2 * MEBI)


class Taking:
    """Reads a stream in the background and tells how much came."""

    def __init__(self, stream: BlobStream, start: int = 0, stop: int | None = None) -> None:
        self.data = bytearray()
        self._stream = stream
        self.task = asyncio.create_task(self._run(start, stop))

    async def _run(self, start: int, stop: int | None) -> bytes:
        try:
            async for view in self._stream.chunks(start, stop):
                self.data += view
        finally:
            await self._stream.aclose()
        return bytes(self.data)

    async def came(self, count: int) -> None:
        """Return when `count` bytes came, and no more come for a while."""
        async with asyncio.timeout(5):
            while len(self.data) < count:  # noqa: ASYNC110 - real time, for real threads
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
        assert len(self.data) == count
        assert not self.task.done()


async def test_all_but_the_last_64_kib_go_out_before_the_verdict(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={len(CONTENT): gate}))
    async with open_cache(tmp_path) as bench:
        taking = Taking(await get(bench, source, CONTENT))
        await taking.came(len(CONTENT) - HOLDBACK)
        gate.set()
        assert await taking.task == CONTENT


@pytest.mark.parametrize("size", [1, 1000, HOLDBACK])
async def test_of_a_small_blob_nothing_goes_out_before_the_verdict(
    tmp_path: Path, size: int
) -> None:
    content = make_content(size)
    gate = asyncio.Event()
    source = ScriptedSource(content, Answer(gates={size: gate}))
    async with open_cache(tmp_path) as bench:
        taking = Taking(await get(bench, source, content))
        await taking.came(0)
        gate.set()
        assert await taking.task == content


async def test_an_empty_blob_waits_for_the_verdict_too(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(b"", Answer(gates={0: gate}))
    async with open_cache(tmp_path) as bench:
        taking = Taking(await get(bench, source, b""))
        await taking.came(0)
        gate.set()
        assert await taking.task == b""
        await idle(bench)
        stored = await get(bench, source, b"")
        assert stored.outcome == "hit"
        assert await read_all(stored) == b""
        assert len(source.opened) == 1


async def test_strict_sends_nothing_before_the_verdict(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={len(CONTENT): gate}))
    async with open_cache(tmp_path, limits=TransferLimits(strict=True)) as bench:
        taking = Taking(await get(bench, source, CONTENT))
        await taking.came(0)
        gate.set()
        assert await taking.task == CONTENT


@pytest.mark.parametrize(
    ("start", "stop", "before"),
    [
        (0, 1000, 0),
        (0, 200_000, 200_000 - HOLDBACK),
        (100, MEBI, MEBI - 100 - HOLDBACK),
        (len(CONTENT) - 10, len(CONTENT), 0),
        (len(CONTENT) - HOLDBACK - 5, len(CONTENT) - 5, 0),
        (MEBI, len(CONTENT), MEBI - HOLDBACK),
        (MEBI, MEBI, 0),
    ],
)
async def test_a_range_never_completes_before_the_verdict(
    tmp_path: Path, start: int, stop: int, before: int
) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={len(CONTENT): gate}))
    async with open_cache(tmp_path) as bench:
        taking = Taking(await get(bench, source, CONTENT), start, stop)
        await taking.came(before)
        gate.set()
        assert await taking.task == CONTENT[start:stop]


async def test_a_range_far_ahead_waits_until_its_bytes_are_there(tmp_path: Path) -> None:
    gate = asyncio.Event()
    source = ScriptedSource(CONTENT, Answer(gates={MEBI: gate}))
    async with open_cache(tmp_path) as bench:
        taking = Taking(await get(bench, source, CONTENT), MEBI + 500, len(CONTENT))
        await taking.came(0)
        gate.set()
        assert await taking.task == CONTENT[MEBI + 500 :]


@pytest.mark.parametrize("position", [0, MEBI, len(CONTENT) - 1])
async def test_of_wrong_bytes_the_end_never_goes_out(tmp_path: Path, position: int) -> None:
    wrong = bytearray(CONTENT)
    wrong[position] ^= 1
    source = ScriptedSource(CONTENT, Answer(content=bytes(wrong)))
    async with open_cache(tmp_path) as bench:
        takings = [
            Taking(await get(bench, source, CONTENT), *bounds)
            for bounds in [(0, None), (0, 10), (len(CONTENT) - 1, None), (5, 5)]
        ]
        for taking, most in zip(takings, [len(CONTENT) - HOLDBACK, 0, 0, 0], strict=True):
            with pytest.raises(Integrity):
                await taking.task
            assert len(taking.data) <= most


async def test_ranges_of_a_stored_blob(tmp_path: Path) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        await read_all(await get(bench, source, CONTENT))
        for start, stop in [(0, 1), (5, 300_000), (MEBI - 1, MEBI + 1), (7, 7), (MEBI, None)]:
            stream = await get(bench, source, CONTENT)
            assert await read_all(stream, start, stop) == CONTENT[start:stop]
        assert len(source.opened) == 1
