"""A device's connection, byte by byte, and the device port beside it: which way a request takes."""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import shake_256

from facade.oci.digest import Digest
from facade.serving.api.lane import Lanes
from facade.target import SignedTarget
from facade.wings import Pulled
from tests.support.facade_app import FacadeApp, path
from tests.support.image import one_layer_image
from tests.support.registry import Registry

# More than what the kernel takes of an answer that nobody reads.
PAYLOAD = shake_256(b"layer").digest(8_000_000)
IMAGE = one_layer_image(PAYLOAD)
DATA = IMAGE.manifests[IMAGE.index][1]
LAYER = Digest.of(PAYLOAD)
(CONFIG,) = IMAGE.blobs.keys() - {LAYER}
SECONDS = 20.0
_OURS = re.compile(rb'(?<=Date: )[^\r]+|(?<="request_id":")[^"]+')


@dataclass
class Wire:
    """One TLS connection of a device, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> tuple[dict[str, str], bytes]:
        """Send these very bytes; the answer's head and body."""
        self.writer.write(request)
        return await self.answer(body=not request.startswith(b"HEAD"))

    async def answer(self, *, body: bool = True) -> tuple[dict[str, str], bytes]:
        async with asyncio.timeout(SECONDS):
            status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            head = {"": status} | dict(line.split(": ", 1) for line in lines if line)
            length = int(head.get("Content-Length", 0)) if body else 0
            return head, await self.reader.readexactly(length)

    async def verbatim(self, *, body: bool = True) -> bytes:
        """The next answer as it came, except for what differs by the second and the request."""
        async with asyncio.timeout(SECONDS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            body = body and b" 304 " not in head
            data = await self.reader.readexactly(int(length[1])) if body and length else b""
        return _OURS.sub(b"*", head + data)

    async def rest(self) -> bytes:
        """Everything until the connection ends, however it does."""
        data = b""
        async with asyncio.timeout(SECONDS):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while more := await self.reader.read(1 << 16):
                    data += more
        return _OURS.sub(b"*", data)

    async def ended(self) -> bool:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read() == b""


@asynccontextmanager
async def connected(
    address: tuple[str, int], context: ssl.SSLContext, *, slow: bool = False
) -> AsyncIterator[Wire]:
    """A new connection to a device port.

    Arguments:
        slow: it takes little at a time, and little before it is read from.
    """
    sock = socket.socket()
    if slow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, address)
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=context, server_hostname="localhost"
    )
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


@dataclass
class Bench:
    facade: FacadeApp
    registry: Registry
    target: SignedTarget
    context: ssl.SSLContext

    def get(
        self, kind: str = "manifests", *headers: str, method: str = "GET", v: str = "1.1"
    ) -> bytes:
        digest = {"manifests": IMAGE.index, "blobs": LAYER, "config": CONFIG}[kind]
        kind = "manifests" if kind == "manifests" else "blobs"
        at = path(self.registry, "org/app", kind, digest)
        return "\r\n".join([f"{method} {at} HTTP/{v}", "Host: x", *headers, "", ""]).encode()

    def wire(self, *, slow: bool = False) -> AbstractAsyncContextManager[Wire]:
        """A new connection, as `connected` makes it."""
        return connected(("127.0.0.1", self.facade.port), self.context, slow=slow)

    async def long_way(self, wire: Wire, request: bytes) -> tuple[dict[str, str], bytes]:
        """Ask, and see that the HTTP server was asked."""
        before = self.facade.http_server.requests_count
        answer = await wire.ask(request)
        assert self.facade.http_server.requests_count == before + 1
        return answer

    async def short_way(self, wire: Wire, request: bytes) -> tuple[dict[str, str], bytes]:
        """Ask, and see that the HTTP server was not."""
        before = self.facade.http_server.requests_count
        answer = await wire.ask(request)
        assert self.facade.http_server.requests_count == before
        return answer

    async def known(self, wire: Wire, request: bytes) -> None:
        await self.long_way(wire, request)
        await self.short_way(wire, request)

    async def sending(self) -> None:
        """Return when a stream is under way."""
        async with asyncio.timeout(SECONDS):
            while not self.facade.guard.running:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.002)

    @property
    def lanes(self) -> Lanes:
        assert self.facade.app.lanes is not None
        return self.facade.app.lanes

    @property
    def reports(self) -> list[Pulled]:
        return [each for each in self.facade.control.events if isinstance(each, Pulled)]
