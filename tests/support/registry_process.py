"""A registry in a process of its own, which makes one large blob up as it sends it.

Guarantees: neither process ever holds the blob; the child ends with the context. For tests that
measure the memory of the process that pulls.

    async with big_blob_upstream("org/app", block_bytes=1 << 20, count=2048) as upstream: ...
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.upstream.connection import Connection, ConnectionSettings
from tests.support.registry import Registry

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class BigUpstream:
    """Where it listens, and what it has."""

    port: int
    digest: Digest
    size: int

    @property
    def host(self) -> RegistryHost:
        return RegistryHost("127.0.0.1", self.port)

    @property
    def connection(self) -> Connection:
        return Connection("big", self.host, "anonymous", settings=ConnectionSettings(insecure=True))


@asynccontextmanager
async def big_blob_upstream(
    repository: str, *, block_bytes: int, count: int
) -> AsyncIterator[BigUpstream]:
    """Start it: a blob of `count` equal blocks in `repository`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.registry_process"),
        *(repository, str(block_bytes), str(count)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        async with asyncio.timeout(_START_SECONDS):
            said = json.loads(await process.stdout.readline())
        yield BigUpstream(said["port"], Digest.parse(said["digest"]), said["size"])
    finally:
        process.stdin.close()  # it ends when nobody holds its stdin
        await process.wait()


async def _serve(repository: str, block_bytes: int, count: int) -> None:
    async with Registry() as registry:
        digest, size = registry.add_repeated_blob(repository, bytes(block_bytes), count)
        print(json.dumps({"port": registry.port, "digest": str(digest), "size": size}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("repository")
    parser.add_argument("block_bytes", type=int)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    asyncio.run(_serve(given.repository, given.block_bytes, given.count))
