"""Sending content: from the verified stream, or from memory, to the socket.

Guarantees: nothing is sent before the stream gave its first bytes, so what fails until then is a
proper answer; what fails later cuts the connection, so no client takes the body for complete; a
stream is always closed, whoever leaves first. Memory per answer is one view of the store's or one
piece of a document, however slowly the device reads, and the caller's slot is held meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError, Integrity
from facade.oci.request import PullRequest
from facade.serving.api.answers import Plan
from facade.serving.api.exchange import Exchange
from facade.serving.api.peer import Peers
from facade.serving.blobs.port import BlobStream
from facade.serving.pulls.answers import BlobAnswer
from facade.serving.pulls.guard import StreamGuard
from facade.serving.pulls.service import PullService, device_key

PIECE_BYTES = 64 * 1024
"""A document up to this long is written at once; a longer one waits for the device in between."""
TURN_BYTES = 2 * 1024 * 1024
"""After so many in a row everybody else has a turn. Where the device keeps up and the file is in memory
nothing ever makes a stream wait, and 64 MiB in one go kept the loop for 40 ms."""


class Sender:
    """Sends blobs and documents."""

    def __init__(
        self, *, pulls: PullService, peers: Peers, guard: StreamGuard, clock: Clock
    ) -> None:
        self._pulls = pulls
        self._peers = peers
        self._guard = guard
        self._clock = clock

    async def send(
        self, exchange: Exchange, device: Device, answer: BlobAnswer, plan: Plan
    ) -> web.StreamResponse:
        """Send what `plan` says of `answer`.

        Raises what the stream raises before its first byte; after that the connection is cut and
        `exchange.error` says why.
        """
        transport = _transport(exchange)
        async with (
            self._watched(exchange, device, answer.request, transport),
            self._pulls.streams.hold(device_key(device)),
        ):
            if self._pulls.rates is not None:
                await self._pulls.rates.stream(device_key(device))
            stream = await answer.open()
            exchange.cache = stream.outcome
            try:
                return await self._send(exchange, device, stream, plan, transport)
            finally:
                await stream.aclose()

    async def document(
        self,
        exchange: Exchange,
        device: Device,
        data: bytes,
        plan: Plan,
        request: PullRequest | None = None,
    ) -> web.StreamResponse:
        """Send `data`, the body that `plan` speaks of, to a device that may still have it.

        Arguments:
            request: judged again and again while a long document is sent; None = the device's
                certificate alone counts.

        Raises Denied.
        """
        transport = _transport(exchange)
        small = len(data) <= PIECE_BYTES
        if self._pulls.rates is not None:
            await self._pulls.rates.stream(device_key(device))
            await self._pulls.rates.sent(device_key(device), len(data) if small else 0)
        self._peers.check(transport)  # slot, walk and registry may have taken a minute together
        if small:
            exchange.bytes_sent = len(data)
            return web.Response(status=plan.status, body=data, headers=plan.headers)
        if request is None:
            return await self._send_pieces(exchange, device, data, plan, transport)
        async with self._watched(exchange, device, request, transport):
            return await self._send_pieces(exchange, device, data, plan, transport)

    @asynccontextmanager
    async def _watched(
        self,
        exchange: Exchange,
        device: Device,
        request: PullRequest,
        transport: asyncio.Transport,
    ) -> AsyncIterator[None]:
        watched = self._guard.watch(
            device,
            request,
            check=lambda: self._peers.check(transport),
            # Closing the transport also cancels whoever waits for bytes on its behalf.
            stop=transport.abort,
        )
        try:
            yield
        finally:
            self._guard.forget(watched)
            if watched.ended_by is not None:
                exchange.error = watched.ended_by

    async def _send_pieces(
        self,
        exchange: Exchange,
        device: Device,
        data: bytes,
        plan: Plan,
        transport: asyncio.Transport,
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=plan.status, headers=plan.headers)
        exchange.status, exchange.response = plan.status, response
        await response.prepare(exchange.http)
        view = memoryview(data)
        for at in range(0, len(view), PIECE_BYTES):
            self._peers.check(transport)
            piece = view[at : at + PIECE_BYTES]
            await response.write(piece)
            exchange.bytes_sent += len(piece)
            if self._pulls.rates is not None:
                await self._pulls.rates.sent(device_key(device), len(piece))
        await response.write_eof()
        exchange.complete = True
        return response

    async def _send(
        self,
        exchange: Exchange,
        device: Device,
        stream: BlobStream,
        plan: Plan,
        transport: asyncio.Transport,
    ) -> web.StreamResponse:
        chunks = aiter(stream.chunks(plan.start, plan.stop))
        chunk = await anext(chunks, None)
        self._peers.check(transport)  # the guard's next round may come after a small blob's end
        exchange.first_byte = self._clock.monotonic()
        response = web.StreamResponse(status=plan.status, headers=plan.headers)
        exchange.status, exchange.response = plan.status, response
        await response.prepare(exchange.http)
        expected = plan.stop - plan.start
        turn = 0
        try:
            while chunk is not None:
                size = len(chunk)
                # The view is ours until the next is asked for; the transport has encrypted it,
                # and so copied it, when write() has handed it over.
                await response.write(chunk)
                exchange.bytes_sent += size
                if self._pulls.rates is not None:
                    await self._pulls.rates.sent(device_key(device), size)
                turn += size
                if turn >= TURN_BYTES:
                    turn = 0
                    await asyncio.sleep(0)
                chunk = await anext(chunks, None)
            if exchange.bytes_sent != expected:
                raise Integrity(
                    f"The stream ended after {exchange.bytes_sent} of {expected} bytes."
                )
            await response.write_eof()
        except FacadeError as error:
            exchange.error = error
            transport.abort()
            return response
        exchange.complete = True
        return response


def _transport(exchange: Exchange) -> asyncio.Transport:
    transport = exchange.http.transport
    if transport is None:
        raise ConnectionResetError("The device has left.")
    return transport
