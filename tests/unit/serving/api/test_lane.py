"""When a lane answers by itself, and when it leaves everything to the HTTP server."""

import asyncio
from dataclasses import dataclass
from typing import cast

import pytest
from aiohttp.test_utils import make_mocked_request

from facade.errors import NotFound
from facade.serving.api.lane import MAX_LATER_BYTES, Lane, Lanes
from facade.serving.api.understood import MAX_WORDS_BYTES, Understood, is_one_head
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


class Answering:
    """Answers one request, and takes note of all that it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def answer(self, lane: Lane, asked: bytes) -> bool:
        self.asked.append(asked)
        return asked == ONE


class HttpServer(asyncio.Protocol):
    """Takes note of what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.given.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Transport:
    """Of a connection of which the client sends nothing more."""

    more = False

    def __init__(self) -> None:
        self.paused = self.closed = False
        self.leases: list[bool] = []
        """Of each, whether it has ended."""
        self.answers = 0

    def lease(self) -> "Lease":
        self.leases.append(False)
        return Lease(self, len(self.leases) - 1)

    def answered(self) -> None:
        self.answers += 1

    def request_read(self) -> None:
        """Nobody looks at the limit on trickling requests here."""

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@dataclass
class Lease:
    transport: Transport
    number: int

    def end(self) -> None:
        self.transport.leases[self.number] = True


class Bench:
    def __init__(self) -> None:
        self.shortcut, self.server, self.transport = Answering(), HttpServer(), Transport()
        understood = Understood(lambda *_: NotFound("Nothing is learnt here."))
        self.lanes = Lanes(shortcut=self.shortcut, understood=understood, idle_seconds=60.0)
        self.lane = Lane(self.lanes, lambda: self.server)
        self.lane.connection_made(cast("TlsTransport", self.transport))

    def returned(self) -> None:
        self.lane.returned(make_mocked_request("GET", "/"), 200)


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
    assert bench.shortcut.asked == [OTHER]


class Sending:
    """An answer that a lane carries, and that ends when it is told."""

    def __init__(self, bench: Bench, *, closing: bool = False) -> None:
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.cancelled = False
        bench.lane.carry(self._run(), closing=closing)

    async def _run(self) -> None:
        try:
            await self.end
        except asyncio.CancelledError:
            self.cancelled = True
            raise

    async def ended(self) -> None:
        self.end.set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("more", [ONE, OTHER, ONE[:9]])
async def test_nothing_is_answered_beside_what_the_lane_sends(more: bytes) -> None:
    bench = Bench()
    sending = Sending(bench)
    bench.lane.data_received(more)
    assert not bench.transport.paused  # it would not be seen to leave
    assert (bench.shortcut.asked, bench.server.given) == ([], [])
    await sending.ended()
    assert (bench.shortcut.asked, bench.server.given) == ([], [more])


async def test_no_more_than_so_much_is_kept_of_what_comes_meanwhile() -> None:
    bench = Bench()
    sending = Sending(bench)
    pieces = [b"x" * (MAX_LATER_BYTES - 1), b"y" * 16 * 1024]
    paused = []
    for piece in pieces:
        bench.lane.data_received(piece)
        paused.append(bench.transport.paused)
    await sending.ended()
    assert [*paused, bench.transport.paused] == [False, True, False]
    assert bench.server.given == [b"".join(pieces)]


async def test_the_http_server_is_done_with_a_connection_while_the_lane_sends() -> None:
    bench = Bench()
    bench.lane.data_received(OTHER)
    bench.returned()
    assert bench.lane not in bench.lanes.open
    sending = Sending(bench)
    assert bench.server.lost
    assert bench.transport.leases == [True]  # ended: closing it means nothing
    assert bench.lane in bench.lanes.open
    await sending.ended()
    bench.lane.data_received(ONE)
    bench.lane.data_received(OTHER)
    assert bench.transport.leases == [True, False]
    assert bench.transport.answers == 1
    assert bench.server.given == [OTHER, OTHER]


async def test_a_device_that_leaves_ends_what_the_lane_sends() -> None:
    bench = Bench()
    sending = Sending(bench)
    bench.lane.data_received(OTHER)
    bench.transport.closed = True
    bench.lane.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert sending.cancelled
    assert bench.server.given == []
    assert not bench.lanes.open


@pytest.mark.parametrize("asked_to", [True, False])
async def test_a_connection_ends_after_what_the_lane_sends(asked_to: bool) -> None:
    bench = Bench()
    sending = Sending(bench, closing=asked_to)
    bench.lane.data_received(ONE)
    if not asked_to:
        bench.lanes.close()
    before = bench.transport.closed
    await sending.ended()
    assert (before, bench.transport.closed) == (False, True)
    assert bench.server.given == []


async def test_nothing_new_is_answered_when_the_drain_has_begun() -> None:
    bench = Bench()
    bench.lanes.close()
    bench.lane.data_received(ONE)
    assert (bench.shortcut.asked, bench.server.given) == ([], [ONE])


async def test_a_lane_waits_for_the_device_to_take_what_was_written() -> None:
    bench = Bench()
    await bench.lane.drained()
    bench.lane.pause_writing()
    waiting = asyncio.create_task(bench.lane.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.lane.resume_writing()
    await waiting
