"""A connection that is gone before its body is read: what aiohttp calls a RuntimeError."""

import asyncio
from typing import cast

import aiohttp
import pytest
from aiohttp.base_protocol import BaseProtocol
from yarl import URL

from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.body import BlobBody
from facade.upstream.retry import Timeouts
from tests.support.basin import KeepingBasin
from tests.support.clock import FakeClock


class Lost:
    """An answer whose head came, and whose connection is no more."""

    connection = None
    content_length = 10
    status = 200
    url = real_url = URL("https://registry.example/v2/")

    def __init__(self) -> None:
        protocol = BaseProtocol(asyncio.get_running_loop())
        self.content = aiohttp.StreamReader(protocol, 1024)

    def close(self) -> None:
        """Nothing is left to close."""


@pytest.mark.parametrize("way", ["chunks", "pour"])
async def test_it_counts_as_a_broken_transfer(way: str) -> None:
    body = BlobBody(
        cast("aiohttp.ClientResponse", Lost()),
        offset=0,
        total=10,
        etag=None,
        clock=FakeClock(),
        timeouts=Timeouts(),
    )
    with pytest.raises(Upstream) as caught:
        await (body.pour(KeepingBasin()) if way == "pour" else anext(body.chunks()))
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
