"""The registry in a process of its own has the blob that it announces."""

import hashlib

import aiohttp

from tests.support.registry_process import big_blob_upstream


async def test_it_serves_the_blob_it_announces() -> None:
    async with (
        big_blob_upstream("org/app", block_bytes=1000, count=3) as upstream,
        aiohttp.ClientSession() as session,
        session.get(f"{upstream.connection.base_url}/v2/org/app/blobs/{upstream.digest}") as answer,
    ):
        data = await answer.read()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (3000, upstream.digest.hex)
    assert upstream.size == 3000
