"""What may come back on a connection of the pool, from a server that sends what the test says when it says so."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from facade.errors import Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.direct import DirectRequests
from facade.upstream.retry import Timeouts
from tests.support.authorizers import FixedAuthorizer
from tests.support.upstream_client import APP, Notes, registry_client

DIGEST = Digest.of(b"content")
HURRIED = Timeouts(connect=5.0, first_byte=0.3)


def sized(count: int) -> bytes:
    """The answer to HEAD for a blob of so many bytes."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count


class Wire:
    """One connection, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def asked(self) -> bytes:
        """The next request's head. Raises IncompleteReadError when there is none."""
        return await self._reader.readuntil(b"\r\n\r\n")

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


@asynccontextmanager
async def registry(talk: Callable[[Wire, int], Awaitable[None]]) -> AsyncIterator[Connection]:
    """A registry over plain http that does as `talk` says with its connections, which are counted from 1."""
    count = 0

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        try:
            await talk(Wire(reader, writer), count)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host = RegistryHost("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield Connection("c", host, "anonymous", settings=ConnectionSettings(insecure=True))
    finally:
        server.close()


async def test_an_answer_that_comes_unasked_answers_nothing() -> None:
    said = asyncio.Event()

    async def talk(wire: Wire, number: int) -> None:
        await wire.asked()
        await wire.say(sized(number))
        if number == 1:
            await asyncio.sleep(0.05)  # by now the first answer was taken
            await wire.say(sized(666))
            said.set()
        await wire.asked()

    async with registry(talk) as connection, registry_client(observer=(notes := Notes())) as client:
        assert await client.blob_size(connection, APP, DIGEST) == 1
        await said.wait()
        await asyncio.sleep(0.05)
        assert await client.blob_size(connection, APP, DIGEST) == 2
    assert notes.retries == []


async def test_a_connection_that_ended_meanwhile_is_made_again() -> None:
    async def talk(wire: Wire, number: int) -> None:
        await wire.asked()
        await wire.say(sized(number))
        if number == 1:
            await wire.asked()  # and then it ends, without an answer

    async with registry(talk) as connection, registry_client(observer=(notes := Notes())) as client:
        assert [await client.blob_size(connection, APP, DIGEST) for _ in range(2)] == [1, 2]
    assert notes.retries == []


@pytest.mark.parametrize("drop", [b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n", b"H"])
async def test_a_head_that_trickles_is_not_waited_for(drop: bytes) -> None:
    async def talk(wire: Wire, _: int) -> None:
        await wire.asked()
        if len(drop) == 1:
            await wire.say(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            await wire.say(drop)
            await asyncio.sleep(0.02)

    async with registry(talk) as connection, registry_client(timeouts=HURRIED) as client:
        before = time.monotonic()
        with pytest.raises(Upstream, match="did not answer in time") as caught:
            await client.blob_size(connection, APP, DIGEST)
        assert caught.value.reason is Reason.DEADLINE
        assert time.monotonic() - before < 5


async def test_connecting_counts_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says hello
        host = RegistryHost("127.0.0.1", silent.getsockname()[1])
        async with registry_client(timeouts=HURRIED) as client:
            with pytest.raises(Upstream, match="did not answer in time") as caught:
                await client.ping(Connection("c", host, "anonymous"))
            assert caught.value.reason is Reason.DEADLINE


class SilentResolver(AbstractResolver):
    """Never answers."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        await asyncio.Event().wait()
        raise OSError

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("within", [0.1, 1e-9, -1.0])
async def test_a_try_that_has_no_time_left_does_not_connect_as_long_as_it_lasts(
    within: float,
) -> None:
    """As the second one, when the first one's connection ended late."""
    async with aiohttp.TCPConnector(resolver=SilentResolver()) as connector:
        direct = DirectRequests(connector, connect_seconds=60.0)
        url = URL("http://registry.example/")
        async with asyncio.timeout(10) as patience:
            with pytest.raises(TimeoutError):
                await direct.send("GET", url, {}, context=True, within=within)
        assert not patience.expired()


async def test_interim_answers_are_passed_over() -> None:
    async def talk(wire: Wire, _: int) -> None:
        await wire.asked()
        await wire.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2 + sized(7))

    async with registry(talk) as connection, registry_client() as client:
        assert await client.blob_size(connection, APP, DIGEST) == 7


async def test_a_header_is_not_smuggled_into_a_request() -> None:
    heard: list[bytes] = []

    async def talk(wire: Wire, _: int) -> None:
        heard.append(await wire.asked())

    for word in ("Bearer a\r\nX-Evil: 1", "Bearer a\nX-Evil: 1", "Bearer \0", "Bearer \u00e9"):
        async with (
            registry(talk) as connection,
            registry_client(FixedAuthorizer(word)) as client,
        ):
            with pytest.raises(ValueError, match="not printable ASCII"):
                await client.blob_size(connection, APP, DIGEST)
    assert heard == []


async def test_what_is_sent() -> None:
    heard: list[bytes] = []

    async def talk(wire: Wire, _: int) -> None:
        heard.append(await wire.asked())
        await wire.say(sized(7))

    async with (
        registry(talk) as connection,
        registry_client(FixedAuthorizer("Bearer t")) as client,
    ):
        assert await client.blob_size(connection, APP, DIGEST) == 7
    line, *fields = heard[0].decode().rstrip("\r\n").split("\r\n")
    assert line == f"HEAD /v2/{APP}/blobs/{DIGEST} HTTP/1.1"
    agent = [field for field in fields if field.startswith("User-Agent: facade/")]
    assert sorted(fields) == sorted(
        [
            f"Host: {connection.host.endpoint}",
            "Accept: */*",
            "Accept-Encoding: identity",
            "Authorization: Bearer t",
            *agent,
        ]
    )
    assert len(agent) == 1
