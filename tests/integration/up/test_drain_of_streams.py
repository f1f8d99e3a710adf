"""A drain lets a cached blob be sent that the HTTP server knows nothing of."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.support.lanes import SECONDS, connected
from tests.support.live import REPOSITORY, live

pytestmark = pytest.mark.slow

PAYLOAD_BYTES = 8_000_000
"""More than what the kernel takes of an answer that nobody reads."""


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_drain_waits_for_a_cached_blob(tmp_path: Path, workers: int) -> None:
    env = {"FACADE_DEVICE__WORKERS": str(workers)}
    async with live(tmp_path, env=env, payload_bytes=PAYLOAD_BYTES) as it:
        await it.add()
        await it.import_all()
        image = it.images["v1"]
        digest = max(image.blobs, key=lambda each: len(image.blobs[each]))
        path = f"/v2/{it.registry.host.path_segment}/{REPOSITORY}/blobs/{digest}"
        asked = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        host, port = it.facade.device.rsplit(":", 1)
        for _ in range(3):  # fetched, opened, and its words learnt
            async with connected((host, int(port)), it.context) as wire:
                answer, _ = await wire.ask(asked)
                assert " 200 " in answer[""]
            await asyncio.sleep(0.2)  # until it is published
        async with connected((host, int(port)), it.context, slow=True) as wire:
            wire.writer.write(asked)
            async with asyncio.timeout(SECONDS):
                head = await wire.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            assert length is not None
            stopping = asyncio.create_task(it.facade.stop())
            await it.facade.logged("draining")
            await asyncio.sleep(0.5)  # long enough for everything that does not wait
            assert not stopping.done()
            async with asyncio.timeout(SECONDS):
                body = await wire.reader.readexactly(int(length[1]))
            assert body == image.blobs[digest]
        assert await stopping == 0
