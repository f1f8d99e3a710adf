"""Changing a file of the cache while a slow reader of the running transfer has yet to read it.

The verdict was made on what came; what the disk gives back later is checked for itself, in whole
blocks, at the end that is no whole block, and where a Range begins inside one.
"""

from pathlib import Path

import pytest

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.serving.blobs.port import BLOCK_BYTES
from tests.support.blob_source import ScriptedSource
from tests.support.blobs import CONNECTION, MEBI, REPOSITORY, get, make_content, open_cache

TAIL = 100_000
CONTENT = make_content(4 * MEBI + TAIL)
SIZE = len(CONTENT)
DIGEST = Digest.of(CONTENT)


def flip(folder: Path, at: int) -> None:
    """Change one bit of the one object."""
    with (folder / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex).open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("start", "at"),
    [
        (0, SIZE - 1),
        (0, SIZE - TAIL),
        (0, SIZE - TAIL - 1),
        (BLOCK_BYTES + 7, BLOCK_BYTES + 9),
        (SIZE - TAIL + 5, SIZE - 3),
    ],
)
async def test_a_bit_flipped_behind_the_verdicts_back(tmp_path: Path, start: int, at: int) -> None:
    source = ScriptedSource(CONTENT)
    async with open_cache(tmp_path) as bench:
        late = await get(bench, source, CONTENT)
        assert await bench.cache.fetch(CONNECTION, REPOSITORY, DIGEST, SIZE, source)
        flip(tmp_path, at)
        got = bytearray()
        try:
            async for view in late.chunks(start):
                got += view
        except Integrity:
            assert CONTENT[start:].startswith(got)
        else:
            assert got == CONTENT[start:]
        await late.aclose()
        assert len(source.opened) == 1
