"""A process that fetches one blob and is killed in the middle: run by `test_blob_kill`.

`python blob_process.py ROOT SIZE STOP`: fetches content of SIZE bytes into the cache at ROOT,
stalls for ever once STOP bytes were sent, and prints how many its reader got, line by line.
"""

import asyncio
import sys
from pathlib import Path

from tests.support.blob_source import Answer, ScriptedSource
from tests.support.blobs import get, make_content, open_cache


async def main(root: Path, size: int, stop: int) -> None:
    content = make_content(size)
    source = ScriptedSource(content, Answer(gates={stop: asyncio.Event()}))
    async with open_cache(root) as bench:
        stream = await get(bench, source, content)
        count = 0
        async for view in stream.chunks():
            count += len(view)
            print(count, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
