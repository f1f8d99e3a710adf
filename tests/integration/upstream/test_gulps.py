"""Large receives wait for nobody in vain: trickles, ends, and what comes next on the connection."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from facade.upstream.gulps import GULP_BYTES, Gulps

SIZE = 3 * GULP_BYTES + 77
PATIENT_SECONDS = 20.0


class Server:
    """Answers each request on one connection with `bodies` in turn, in pieces when told to."""

    def __init__(self, *bodies: list[bytes]) -> None:
        self._bodies = list(bodies)
        self.more = asyncio.Event()
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self._bodies and await reader.readuntil(b"\r\n\r\n"):
            pieces = self._bodies.pop(0)
            size = sum(map(len, pieces))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if piece is not pieces[-1]:
                    await self.more.wait()
                    self.more.clear()
        await reader.read()
        writer.close()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"


def mark_of(response: aiohttp.ClientResponse) -> int:
    connection = response.connection
    assert connection is not None
    assert connection.transport is not None
    sock: socket.socket = connection.transport.get_extra_info("socket")
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def test_a_trickle_in_the_middle_is_handed_over() -> None:
    pieces = [b"a" * 1000, b"b" * 500, b"c" * (SIZE - 1500)]
    server = Server(pieces)
    async with (
        asyncio.timeout(PATIENT_SECONDS),
        serving(server) as url,
        aiohttp.ClientSession(read_bufsize=GULP_BYTES) as session,
        session.get(url) as response,
    ):
        gulps = Gulps(response)
        got = await response.content.readany()
        assert got == pieces[0]
        gulps.took(len(got))
        assert mark_of(response) == GULP_BYTES
        server.more.set()
        got += await response.content.readany()  # 500 bytes, though 256 KiB were asked for
        assert got == pieces[0] + pieces[1]
        server.more.set()
        while chunk := await response.content.readany():
            got += chunk
            gulps.took(len(got))
        gulps.end()
        assert got == b"".join(pieces)


async def test_the_end_does_not_wait_for_more_than_there_is() -> None:
    server = Server([b"a" * GULP_BYTES, b"b" * 10])
    async with (
        asyncio.timeout(PATIENT_SECONDS),
        serving(server) as url,
        aiohttp.ClientSession(read_bufsize=GULP_BYTES) as session,
        session.get(url) as response,
    ):
        gulps = Gulps(response)
        have = 0
        while have < GULP_BYTES:
            have += len(await response.content.readany())
            gulps.took(have)
        assert mark_of(response) == 10
        gulps.end()
        assert mark_of(response) == 1
        server.more.set()
        assert await response.content.readany() == b"b" * 10


async def test_a_short_answer_follows_on_the_same_connection() -> None:
    server = Server([b"x" * SIZE], [b"y"])
    async with (
        asyncio.timeout(PATIENT_SECONDS),
        serving(server) as url,
        aiohttp.ClientSession(read_bufsize=GULP_BYTES) as session,
    ):
        async with session.get(url) as response:
            gulps = Gulps(response)
            have = 0
            while chunk := await response.content.readany():
                have += len(chunk)
                gulps.took(have)
            gulps.end()
        async with session.get(url) as response:
            assert await response.read() == b"y"
    assert server.connections == 1


async def test_a_body_that_is_all_here_or_of_unknown_length_is_left_alone() -> None:
    server = Server([b"x"])
    async with (
        serving(server) as url,
        aiohttp.ClientSession() as session,
        session.get(url) as response,
    ):
        assert await response.content.readany() == b"x"
        gulps = Gulps(response)  # the connection has been given back
        gulps.took(1)
        gulps.end()
        gulps.end()
