"""One device with a valid certificate that wants the facade for itself."""

import asyncio
import time
import zlib
from pathlib import Path

from tests.support.facade_app import FacadeApp
from tests.support.pki import client_context

MIB = 1024 * 1024


async def test_compressed_bodies_are_not_inflated(tmp_path: Path) -> None:
    """A body that nobody reads is thrown away as it came: 200 MiB of zeros cost what 200 KiB do."""
    bomb = zlib.compress(bytes(200 * MIB), 9)
    head = (
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Encoding: deflate\r\n"
        f"Content-Length: {len(bomb)}\r\n\r\n"
    )
    last = b"GET /whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with FacadeApp(tmp_path) as facade:
        context = client_context(facade.server_ca, facade.ca.device())
        reader, writer = await asyncio.open_connection(
            "localhost", facade.port, ssl=context, family=2
        )
        before = time.process_time()
        writer.write(head.encode() + bomb + last)
        async with asyncio.timeout(30):
            answers = await reader.read(-1)
        spent = time.process_time() - before
        writer.close()
    assert answers.count(b"HTTP/1.1 200") == 2
    assert spent < 0.2, f"{spent:.2f} s for {len(bomb)} bytes"
