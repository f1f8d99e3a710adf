"""The TLS client with its insides open, and the scripted device port, against stock peers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.support.device_port import PLACE, Refusal, device_port
from tests.support.image import small_image
from tests.support.pki import Authority, client_context, server_context
from tests.support.tls_peer import TlsPeer

CA = Authority.root()
CLIENT = client_context(CA, CA.device())


@asynccontextmanager
async def stock_echo() -> AsyncIterator[tuple[str, int]]:
    """asyncio's own TLS, echoing one line and closing."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    context = server_context(CA.server(), CA)
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[:2]
        await asyncio.sleep(0.05)


async def test_the_peer_speaks_to_a_stock_server() -> None:
    def talk(address: tuple[str, int]) -> bytes:
        with TlsPeer(address, CLIENT) as peer:
            peer.handshake()
            peer.send(b"hello\n")
            first = peer.receive_exactly(3)
            return first + peer.receive_all()

    async with stock_echo() as address:
        assert await asyncio.to_thread(talk, address) == b"hello\n"


async def test_the_peer_sees_a_server_that_it_does_not_trust() -> None:
    def talk(address: tuple[str, int]) -> None:
        with TlsPeer(address, client_context(Authority.root("Other"))) as peer:
            peer.handshake()

    async with stock_echo() as address:
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(talk, address)


async def test_the_device_port_serves_notes_and_misbehaves_on_demand() -> None:
    image = small_image()
    async with device_port(image) as port:
        context = client_context(port.server_ca, port.device_ca.device())
        target = port.sign()
        digest, data = max(image.blobs.items(), key=lambda item: len(item[1]))
        blob = f"/v2/{PLACE}/blobs/{digest}"
        port.refusals["/v2/"] = [Refusal(503, "overloaded", "busy", {"Retry-After": "3"})]
        async with aiohttp.ClientSession(
            port.url, connector=aiohttp.TCPConnector(ssl=context)
        ) as session:
            async with session.get("/tuf/timestamp.json") as answer:
                assert await answer.read() == port.tuf.files["timestamp.json"]
            async with session.get(blob) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
                errors = (await answer.json())["errors"]
                assert errors[0]["detail"]["reason"] == "overloaded"
            async with session.get(blob, headers={"Range": "bytes=5-"}) as answer:
                assert (answer.status, await answer.read()) == (206, data[5:])
            async with session.get(f"/v2/{PLACE}/manifests/{target.digest}") as answer:
                assert target.digest.matches(await answer.read())
            port.cut_after = [3]
            with pytest.raises(aiohttp.ClientError):
                async with session.get(blob) as answer:
                    await answer.read()
            async with session.get("/elsewhere") as answer:
                assert answer.status == 404
        assert port.requests[2] == (blob, "bytes=5-")
        assert port.count("/v2/") == 4
