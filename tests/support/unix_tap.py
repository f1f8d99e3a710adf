"""A relay between a client and a Unix socket that keeps every byte, and can hold up or break off everything.

Guarantees: `heard` holds what went either way, in order per direction.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 65536


@dataclass
class Tap:
    """A running relay.

    Arguments:
        path: where clients connect.
        flowing: cleared, nothing goes on; nobody is told.
    """

    path: Path
    target: Path
    to_server: bytearray = field(default_factory=bytearray)
    to_client: bytearray = field(default_factory=bytearray)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def heard(self) -> bytes:
        """Everything."""
        return bytes(self.to_server) + bytes(self.to_client)

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up, down = await asyncio.open_unix_connection(self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, down}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, down, self.to_server))
                both.create_task(self._copy(up, writer, self.to_client))
        finally:
            self._writers -= {writer, down}
            for each in (writer, down):
                each.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_BLOCK):
                await self.flowing.wait()
                kept += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def tapped(target: Path, path: Path | None = None) -> AsyncIterator[Tap]:
    """A relay to `target`, at `path` or beside it."""
    tap = Tap(path or target.with_name("tap.sock"), target)
    tap.flowing.set()
    server = await asyncio.start_unix_server(tap.relay, tap.path)
    try:
        yield tap
    finally:
        server.close()
        tap.cut()
        await asyncio.sleep(0)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await server.wait_closed()
