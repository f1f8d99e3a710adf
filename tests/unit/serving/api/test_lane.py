"""When a lane answers by itself, and when it leaves everything to the HTTP server."""

import asyncio
from typing import cast

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from facade.serving.api.lane import MAX_WORDS_BYTES, Lane, Lanes, is_one_head
from facade.serving.identity.stream import TlsTransport

ONE = b"GET /v2/a/manifests/b HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (ONE, True),
        (ONE.replace(b"GET", b"HEAD"), True),
        (ONE.replace(b"GET", b"POST"), False),
        (ONE[:-1], False),
        (ONE + b"x", False),
        (ONE + ONE, False),
        (b"\r\n" + ONE, False),
        (ONE.replace(b"\r\n\r\n", b"\n\n") + ONE, False),
        (ONE.replace(b"x\r\n", b"x\n"), False),
        (ONE.replace(b"x", b"x" * MAX_WORDS_BYTES), False),
        (b"", False),
    ],
)
def test_one_whole_head_and_nothing_else(data: bytes, is_one: bool) -> None:
    assert is_one_head(data) is is_one


class Answering(Lanes):
    """Answers everything that it is asked."""

    def __init__(self) -> None:
        self.open: set[Lane] = set()
        self.spell = 60.0
        self.answered: list[bytes] = []

    def answer(self, transport: TlsTransport, asked: bytes) -> bool:
        self.answered.append(asked)
        return asked == ONE

    def understand(self, asked: bytes, http: web.BaseRequest, status: int) -> None:
        pass


class HttpServer(asyncio.Protocol):
    """Takes note of what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.given.append(data)


class Bench:
    def __init__(self) -> None:
        self.lanes, self.server = Answering(), HttpServer()
        self.lane = Lane(self.lanes, lambda: self.server)
        self.lane.connection_made(cast("TlsTransport", _NoTransport()))

    def returned(self) -> None:
        self.lane.returned(make_mocked_request("GET", "/"), 200)


class _NoTransport:
    more = False

    def answered(self) -> None:
        """Ignore it."""


OTHER = ONE.replace(b"x", b"y")


async def test_a_lane_is_free_again_when_the_one_request_was_answered() -> None:
    bench = Bench()
    bench.lane.data_received(OTHER)
    bench.lane.data_received(ONE[:-2])  # while that is in hand, whatever comes is the server's
    assert bench.server.given == [OTHER, ONE[:-2]]
    bench = Bench()
    bench.lane.data_received(OTHER)
    bench.returned()
    bench.lane.data_received(ONE)
    assert bench.server.given == [OTHER]


@pytest.mark.parametrize("more", [ONE, OTHER, ONE[:9]])
async def test_it_never_is_when_more_came_meanwhile(more: bytes) -> None:
    bench = Bench()
    for data in (OTHER, more):
        bench.lane.data_received(data)
    for _ in range(2):
        bench.returned()
        bench.lane.data_received(ONE)
    assert bench.server.given == [OTHER, more, ONE, ONE]
    assert bench.lanes.answered == [OTHER]
