"""aiohttp's server behind the transport, and reload while it is busy."""

import asyncio
import hashlib
import io
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from facade.serving.identity.certificate import SpiffeRule
from facade.serving.identity.tls import DeviceCAFile, TlsContexts, TlsFiles
from tests.support.pki import TRUST_DOMAIN, Authority, client_context
from tests.support.tls_listener import TlsListener, tls_listener
from tests.support.tls_peer import TlsPeer

CA = Authority.root()
NEXT_CA = Authority.root("Next CA")
SERVER_CA = Authority.root("Server CA")
DEVICE = CA.device("dev", "kiosk-7")
BODY = bytes(range(256)) * 4096


@dataclass
class Served:
    listener: TlsListener
    contexts: TlsContexts
    folder: Path

    def url(self, path: str) -> str:
        return f"https://localhost:{self.listener.port}{path}"


@asynccontextmanager
async def serving(folder: Path, keepalive: float = 75) -> AsyncIterator[Served]:
    files = SERVER_CA.server().write(folder, "server")
    ca = DeviceCAFile(CA.write(folder, "device-ca.pem"))
    contexts = TlsContexts(TlsFiles(files.certificate, files.key, (ca,)), SpiffeRule(TRUST_DOMAIN))

    async def whoami(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        der = request.transport.get_extra_info("peercert_der")
        assert request.scheme == "https"
        return web.Response(text=str(contexts.certificates().device(der)))

    async def body(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(16 * len(BODY))})
        await response.prepare(request)
        for _ in range(16):
            await response.write(BODY)
        await response.write_eof()
        return response

    async def upload(request: web.BaseRequest) -> web.Response:
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
        return web.Response(text=digest.hexdigest())

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await {"/whoami": whoami, "/body": body, "/upload": upload}[request.path](request)

    server = web.Server(handle, keepalive_timeout=keepalive)
    async with tls_listener(contexts.current, server) as listener:
        yield Served(listener, contexts, folder)
        await server.shutdown(1)


@asynccontextmanager
async def client(context: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session
    # asyncio's own TLS closes in its own time.
    await asyncio.sleep(0.05)


CLIENT = client_context(SERVER_CA, DEVICE)


async def test_requests_are_answered_and_the_device_known(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, client(CLIENT) as session:
        for _ in range(3):
            async with session.get(served.url("/whoami")) as response:
                assert await response.text() == "dev/kiosk-7"
        async with session.get(served.url("/body")) as response:
            assert await response.read() == BODY * 16
        data = BODY * 8
        async with session.post(served.url("/upload"), data=io.BytesIO(data)) as response:
            assert await response.text() == hashlib.sha256(data).hexdigest()
        assert len(served.listener.hooks.done) == 1


async def test_a_connection_per_request_as_podman_makes_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, client(CLIENT) as session:
        for _ in range(16):
            async with session.get(
                served.url("/body"), headers={"Connection": "close"}
            ) as response:
                assert await response.read() == BODY * 16
        assert len(served.listener.hooks.done) == 16
        await served.listener.settled()


async def test_reload_under_load_drops_nothing(tmp_path: Path) -> None:
    ended = False

    async def load(session: aiohttp.ClientSession, served: Served, *, close: bool) -> int:
        count = 0
        headers = {"Connection": "close"} if close else {}
        while not ended:
            async with session.get(served.url("/body"), headers=headers) as response:
                assert await response.read() == BODY * 16
            count += 1
        return count

    async with serving(tmp_path) as served, client(CLIENT) as session:
        tasks = [
            asyncio.create_task(load(session, served, close=bool(number % 2)))
            for number in range(12)
        ]
        for _ in range(10):
            SERVER_CA.server().write(served.folder, "server")
            served.contexts.reload()
            await asyncio.sleep(0.05)
        ended = True
        assert all(await asyncio.gather(*tasks))
        assert not served.listener.hooks.failed


async def test_after_a_reload_new_connections_see_the_new_certificate_and_cas(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served, client(CLIENT) as old:
        async with old.get(served.url("/whoami")) as response:
            assert response.status == 200
        fresh = SERVER_CA.server()
        fresh.write(served.folder, "server")
        NEXT_CA.write(served.folder, "device-ca.pem")
        served.contexts.reload()
        next_device = client_context(SERVER_CA, NEXT_CA.device("dev", "kiosk-8"))
        async with client(next_device) as new, new.get(served.url("/whoami")) as response:
            assert await response.text() == "dev/kiosk-8"

        def shown() -> bytes | None:
            with TlsPeer(served.listener.address, next_device) as peer:
                peer.handshake()
                return peer.tls.getpeercert(binary_form=True)

        assert await asyncio.to_thread(shown) == fresh.der
        # The old connection lives on; its CA is gone, so its device is refused (here: 500).
        done = len(served.listener.hooks.done)
        async with old.get(served.url("/whoami")) as response:
            assert response.status == 500
        assert len(served.listener.hooks.done) == done


async def test_a_keepalive_connection_that_idles_is_closed_by_aiohttp(tmp_path: Path) -> None:
    async with serving(tmp_path, keepalive=0.2) as served, client(CLIENT) as session:
        for _ in range(2):
            async with session.get(served.url("/whoami")) as response:
                assert response.status == 200
            await served.listener.settled()
        assert len(served.listener.hooks.done) == 2


@pytest.mark.parametrize("said", [b"", b"GET /whoami HTTP/1.1\r\nHost: "])
async def test_a_head_that_never_ends_is_ended_by_aiohttp(tmp_path: Path, said: bytes) -> None:
    def drip(address: tuple[str, int]) -> None:
        with TlsPeer(address, CLIENT) as peer:
            peer.handshake(with_data=said)
            for _ in range(100):
                peer.send(b"x")
                time.sleep(0.02)

    async with serving(tmp_path, keepalive=0.3) as served:
        with pytest.raises(OSError, match=r"reset|pipe"):
            await asyncio.to_thread(drip, served.listener.address)
