"""A body that is received straight into its reader's buffers.

aiohttp hands a body over in pieces that were copied three times by then, with five coroutines on their
way; and the parser has nothing to do in a body whose length is known. So while such a body comes, the socket's
transport speaks to `Inflow`, and then to aiohttp's protocol again, which gives the connection back.

Guarantees: every byte of the body is given to the basin once, in order, and none behind its end is taken
from the connection; a connection that is lost, or left in the middle, is never used again. Does not
know what the bytes are.
"""

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Protocol

import aiohttp


class Basin(Protocol):
    """Where the bytes go."""

    def space(self) -> memoryview:
        """Where the next ones go; empty while they cannot be taken."""
        ...

    def filled(self, count: int) -> None:
        """So many were put at the start of `space`. What it raises ends the transfer."""
        ...

    async def make_space(self) -> None:
        """Return when there is `space`. What it raises ends the transfer."""
        ...


async def put(data: bytes, basin: Basin) -> None:
    """Copy `data` into the basin. Raises what the basin raises."""
    view = memoryview(data)
    while view:
        space = basin.space()
        part = view[: len(space)]
        space[: len(part)] = part
        view = view[len(part) :]
        if part:
            basin.filled(len(part))
        if view:
            await basin.make_space()


async def pour_chunks(chunks: AsyncIterable[bytes], basin: Basin) -> None:
    """All of a body that comes in pieces. Raises what either side raises."""
    async for chunk in chunks:
        await put(chunk, basin)


class Inflow(asyncio.BufferedProtocol):
    """Takes the place of aiohttp's protocol until the body is over. Make it with `take_over`.

    Arguments:
        left: bytes of the body that are still to come: at least one.
        took: told how many came, each time.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        transport: asyncio.Transport,
        left: int,
        basin: Basin,
        took: Callable[[int], None],
    ) -> None:
        self._content = response.content
        self._transport = transport
        self._former = transport.get_protocol()
        self._left = left
        self._basin = basin
        self._took = took
        self._over = False
        """The transport is its former protocol's again."""
        self._changed = asyncio.get_running_loop().create_future()
        self.waiting = True
        """Whether we wait for the registry, not for the basin."""

    async def run(self) -> None:
        """Return when the body is over. Raises what the basin raises, aiohttp.ClientError, OSError."""
        self._transport.set_protocol(self)
        try:
            while self._left:
                await self._changed
                self._changed = asyncio.get_running_loop().create_future()
                if not self.waiting:
                    await self._basin.make_space()
                    self.waiting = True
                    self._transport.resume_reading()
        finally:
            if not self._changed.cancel() and not self._changed.cancelled():
                self._changed.exception()  # it may have come while the basin made space
            if not self._over:  # whoever made the response closes it, and with it the connection
                self._transport.set_protocol(self._former)

    def fail(self, error: BaseException) -> None:
        """End it with `error`."""
        if not self._changed.done():
            self._changed.set_exception(error)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._basin.space()[: self._left]

    def buffer_updated(self, nbytes: int) -> None:
        if self._changed.done():  # it failed, and is being left
            return
        self._left -= nbytes
        try:
            self._basin.filled(nbytes)
        except Exception as error:  # noqa: BLE001 - whatever it is, it reaches who reads
            self.fail(error)
            return
        self._took(nbytes)
        if not self._left:
            self._over = True
            self._transport.set_protocol(self._former)
            self._content.feed_eof()  # gives the connection back
            self._changed.set_result(None)
        elif not self._basin.space():
            self.waiting = False
            self._transport.pause_reading()
            self._changed.set_result(None)

    def eof_received(self) -> None:
        self.fail(aiohttp.ClientPayloadError("the registry ended the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._former.connection_lost(exc)
        self.fail(exc or aiohttp.ClientPayloadError("the connection was closed"))

    def pause_writing(self) -> None:
        self._former.pause_writing()

    def resume_writing(self) -> None:
        self._former.resume_writing()


def take_over(
    response: aiohttp.ClientResponse, left: int, basin: Basin, took: Callable[[int], None]
) -> Inflow | None:
    """The inflow of the last `left` bytes of `response`, all before having been read; None where it must
    be left to aiohttp: its protocol holds bytes still, or the connection is not a plain transport.
    """
    connection = response.connection  # None when all of it is here
    transport = connection.transport if connection is not None else None
    # While reading is paused, aiohttp has more in hand than it says.
    if not isinstance(transport, asyncio.Transport) or not transport.is_reading():
        return None
    return Inflow(response, transport, left, basin, took)
