"""One of several processes on one cache folder: run by `test_sharing_kill`.

`python sharing_process.py ROOT PORT`: for each line `DIGEST SIZE READERS` of standard input, that
many readers pull the blob of `org/app` at once from the registry on PORT of loopback, through the
cache at ROOT. Prints `ready` first, then a line of JSON per command: digest → what each reader got
("ok", or why not), and how many bytes.
"""

import asyncio
import json
import sys
from pathlib import Path

from facade.clock import SystemClock
from facade.errors import FacadeError
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.serving.blobs.port import BlobSource
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Connection, ConnectionSettings
from tests.support.blobs import REPOSITORY, Bench, open_cache
from tests.support.sources import RegistrySource
from tests.support.upstream_client import registry_client


async def pull(
    bench: Bench, connection: Connection, digest: Digest, size: int, source: BlobSource
) -> str:
    hasher = digest.hasher()
    try:
        stream = await bench.cache.get(connection, REPOSITORY, digest, size, source)
        try:
            async for view in stream.chunks():
                hasher.update(view)
        finally:
            await stream.aclose()
    except FacadeError as error:
        return f"{type(error).__name__}: {error.message}"
    return "ok" if hasher.hexdigest() == digest.hex else "other bytes"


async def serve(bench: Bench, client: RegistryClient, connection: Connection) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("ready", flush=True)
    while line := (await reader.readline()).decode().split():
        digest, size = Digest.parse(line[0]), int(line[1])
        source = RegistrySource(client, connection, REPOSITORY, digest)
        got = await asyncio.gather(
            *(pull(bench, connection, digest, size, source) for _ in range(int(line[2])))
        )
        print(json.dumps(got), flush=True)


async def main(root: Path, port: int) -> None:
    clock = SystemClock()
    host = RegistryHost("127.0.0.1", port)
    connection = Connection("c1", host, "anonymous", settings=ConnectionSettings(insecure=True))
    async with open_cache(root, clock=clock) as bench, registry_client(clock=clock) as client:
        await serve(bench, client, connection)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
