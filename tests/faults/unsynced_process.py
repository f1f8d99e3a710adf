"""A process that keeps one blob in folders that it may not list: run by `test_unsynced_names`.

`python unsynced_process.py ROOT`: prints how many bytes the index counts, and how the blob is served next.
"""

import asyncio
import sys
from pathlib import Path

from tests.support.blob_source import ScriptedSource
from tests.support.blobs import get, idle, make_content, open_cache, read_all


async def main(root: Path) -> None:
    content = make_content(100_000)
    source = ScriptedSource(content)
    async with open_cache(root) as bench:
        assert await read_all(await get(bench, source, content)) == content
        await idle(bench)
        counted = await bench.index.totals()
        next_one = await get(bench, source, content)
        assert await read_all(next_one) == content
        print(*counted, next_one.outcome, source.confirmed)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
