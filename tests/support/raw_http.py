"""A small HTTP/1.1 server for tests that can also speak it wrongly, which no HTTP library would.

Guarantees: GET and HEAD over real sockets, keep-alive, every request noted with its headers before it is
answered. A `Reply` says exactly what goes on the wire. Does not read request bodies longer than
1 MiB.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import parse_qs, unquote

_BLOCK = 256 * 1024


class Content(Protocol):
    """Bytes that need not all be in memory."""

    @property
    def size(self) -> int: ...

    def blocks(self, start: int, stop: int) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class Data:
    """Content that is in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, _BLOCK):
            yield self.data[at : min(at + _BLOCK, stop)]


@dataclass(frozen=True, slots=True)
class Repeated:
    """One block, many times over: a blob of gigabytes that costs no memory."""

    block: bytes
    count: int

    @property
    def size(self) -> int:
        return len(self.block) * self.count

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            at = start % len(self.block)
            piece = self.block[at : at + stop - start]
            yield piece
            start += len(piece)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came. Header names are lower-case; `query` as parsed."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes on the wire.

    Arguments:
        content: the body; sent from `start` to `stop` (None = its end).
        length: value of Content-Length when it shall be wrong; -1 = none (until close).
        cut_after: close the connection after so many bytes of the body.
        stall_after: send nothing more after so many bytes, but keep the connection.
        piece, pause: send pieces of so many bytes, with so many seconds between them.
        delay: seconds before the head.
        until: has to be set before the head is sent.
        raw: sent as it is, instead of everything else; b"" = just close.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    content: Content = field(default_factory=lambda: Data(b""))
    start: int = 0
    stop: int | None = None
    length: int | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    piece: int | None = None
    pause: float = 0.0
    delay: float = 0.0
    until: asyncio.Event | None = None
    raw: bytes | None = None

    def with_header(self, name: str, value: str | None) -> "Reply":
        """The same with a field set, or left out when `value` is None."""
        kept = tuple(item for item in self.headers if item[0].lower() != name.lower())
        return replace(self, headers=kept if value is None else (*kept, (name, value)))

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


Handler = Callable[[Seen], Awaitable[Reply]]


class RawHttpServer:
    """Serves a handler on a free port of 127.0.0.1 (or the given address) until closed."""

    def __init__(self, handler: Handler, *, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        """How many connections were accepted."""

    async def start(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self._server = await asyncio.start_server(self._accept, address, port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (seen := await _read_request(reader)) is not None:
                reply = await self._handler(seen)
                if not await _write(writer, seen, reply):
                    break
            else:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as clients do
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Seen | None:
    try:
        first_byte = await reader.readexactly(1)
        if not first_byte.isupper():
            return None  # a TLS hello, say
        head = first_byte + await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        key = name.strip().lower()
        headers[key] = ", ".join(filter(None, (headers.get(key), value.strip())))
    path, _, query = target.partition("?")
    body = await reader.readexactly(min(int(headers.get("content-length", "0")), 1 << 20))
    return Seen(method, unquote(path), parse_qs(query), headers, body)


async def _write(writer: asyncio.StreamWriter, seen: Seen, reply: Reply) -> bool:
    """Send a reply; whether the connection may be used again."""
    if reply.delay:
        await asyncio.sleep(reply.delay)
    if reply.until is not None:
        await reply.until.wait()
    if reply.raw is not None:
        writer.write(reply.raw)
        await writer.drain()
        return False
    stop = reply.content.size if reply.stop is None else reply.stop
    length = stop - reply.start if reply.length is None else reply.length
    lines = [f"HTTP/1.1 {reply.status} Status"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if length >= 0:
        lines.append(f"Content-Length: {length}")
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    await writer.drain()
    if seen.method == "HEAD":
        return length >= 0
    sent = 0
    for piece in _pieces(reply, stop):
        for limit, stalls in ((reply.cut_after, False), (reply.stall_after, True)):
            if limit is not None and sent + len(piece) > limit:
                writer.write(piece[: limit - sent])
                await writer.drain()
                if stalls:
                    await asyncio.Event().wait()  # until the client goes away, or the test ends
                return False
        writer.write(piece)
        sent += len(piece)
        await writer.drain()
        if reply.pause:
            await asyncio.sleep(reply.pause)
    if reply.stall_after is not None:
        await asyncio.Event().wait()
    return length == sent and reply.cut_after is None


def _pieces(reply: Reply, stop: int) -> Iterator[bytes]:
    for block in reply.content.blocks(reply.start, stop):
        size = reply.piece or len(block) or 1
        for at in range(0, len(block), size):
            yield block[at : at + size]
