"""One device with a valid certificate that wants the facade for itself."""

import asyncio
import json
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_MANIFEST
from facade.serving.identity.handshake import HandshakeReason
from facade.serving.identity.limits import TlsLimits
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import Image
from tests.support.pki import Authority, client_context
from tests.support.registry import Registry
from tests.support.tls_listener import ScriptedProtocol, tls_context, tls_listener

MIB = 1024 * 1024


def long_manifest() -> Image:
    """As long as a manifest may be, nearly."""
    config = {"mediaType": "a/b", "digest": str(Digest.of(b"{}")), "size": 2}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": [],
        "annotations": {"padding": "x" * 4_000_000},
    }
    data = json.dumps(document).encode()
    return Image(Digest.of(data), {Digest.of(data): (OCI_MANIFEST, data)}, {})


@asynccontextmanager
async def not_reading(facade: FacadeApp, target: str) -> AsyncIterator[asyncio.StreamReader]:
    """A connection that asks for `target` and takes next to nothing of the answer."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", facade.port))
    context = client_context(facade.server_ca, facade.ca.device())
    reader, writer = await asyncio.open_connection(
        sock=raw, ssl=context, server_hostname="localhost", limit=1024
    )
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.transport.abort()


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


async def test_long_manifests_that_are_not_read_hold_their_slots(tmp_path: Path) -> None:
    """An answer that waits for its reader is an open request, with a piece of it in memory."""
    image = long_manifest()
    tuning = Tuning(requests=3, wait_seconds=0.2)
    async with (
        FacadeApp(tmp_path, tuning=tuning) as facade,
        Registry() as registry,
        AsyncExitStack() as held,
    ):
        await facade.sign(registry, "org/app", image)
        at = path(registry, "org/app", "manifests", image.index)
        for _ in range(tuning.requests):
            reader = await held.enter_async_context(not_reading(facade, at))
            assert await reader.readexactly(12) == b"HTTP/1.1 200"
        async with facade.device() as same, same.get(at) as answer:
            assert answer.status == 503
            assert b'"overloaded"' in await answer.read()
        async with facade.device() as same, same.get("/tuf/timestamp.json") as answer:
            assert answer.status == 503
        async with facade.device(name="kiosk-8") as other, other.get(at) as answer:
            assert (answer.status, len(await answer.read())) == (
                200,
                len(image.manifests[image.index][1]),
            )


@pytest.mark.parametrize("why", ["revoked", "withdrawn"])
async def test_a_long_manifest_that_is_not_read_ends_with_the_right_to_it(
    tmp_path: Path, why: str
) -> None:
    image = long_manifest()
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", image)
        at = path(registry, "org/app", "manifests", image.index)
        async with not_reading(facade, at) as reader:
            assert await reader.readexactly(12) == b"HTTP/1.1 200"
            if why == "revoked":
                facade.control.revoke("dev", "kiosk-7", time.time())
            else:
                await facade.withdraw(target)
                await facade.refresher.refresh()
            async with asyncio.timeout(5):
                while facade.guard.running:  # noqa: ASYNC110 - there is no event for it
                    await asyncio.sleep(0.01)
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await reader.readexactly(len(image.manifests[image.index][1]))


async def test_one_device_cannot_have_all_connections() -> None:
    """Established and silent: each is kept for a minute, so a few thousand would shut the port."""
    server_ca, device_ca = Authority.root("Server CA"), Authority.root("Device CA")
    context = tls_context(server_ca.server(), device_ca)
    greedy, modest = (client_context(server_ca, device_ca.device(name=n)) for n in ("a", "b"))
    limits = TlsLimits(max_per_certificate=3)
    async with (
        tls_listener(context, ScriptedProtocol, limits) as listener,
        AsyncExitStack() as held,
    ):

        async def connect(who: ssl.SSLContext) -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection(
                *listener.address, ssl=who, server_hostname="localhost"
            )
            held.callback(lambda: writer.transport.abort())  # noqa: PLW0108 - keeps the writer
            return reader

        readers = [await connect(greedy) for _ in range(3)]
        async with asyncio.timeout(5):
            assert await (await connect(greedy)).read() == b""
        assert [reason for reason, _ in listener.hooks.failed] == [HandshakeReason.OVERLOADED]
        readers.append(await connect(modest))
        await asyncio.sleep(0.05)
        assert not any(reader.at_eof() for reader in readers)
        await held.aclose()
        await listener.settled()
        readers = [await connect(greedy) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(reader.at_eof() for reader in readers)
