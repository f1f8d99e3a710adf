"""Sending content: from the verified stream, or from memory, to the socket; through the HTTP server, or
beside it (`shortcut`).

Guarantees: nothing is sent before the stream gave its first bytes, so what fails until then is a
proper answer; what fails later cuts the connection, so no client takes the body for complete; a
stream is always closed, whoever leaves first. Memory per answer is one view of the store's or one
piece of a document, however slowly the device reads, and the caller's slot is held meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from aiohttp import web

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError, Integrity
from facade.oci.request import PullRequest
from facade.serving.api.answers import Plan
from facade.serving.api.exchange import Exchange, Record
from facade.serving.api.peer import Peers
from facade.serving.blobs.port import BlobStream
from facade.serving.pulls.answers import BlobAnswer, ReadyBlob
from facade.serving.pulls.guard import StreamGuard
from facade.serving.pulls.service import PullService, device_key

PIECE_BYTES = 64 * 1024
"""A document up to this long is written at once; a longer one waits for the device in between."""
TURN_BYTES = 2 * 1024 * 1024
"""After so many in a row everybody else has a turn. Where the device keeps up and the file is in memory
nothing ever makes a stream wait, and 64 MiB in one go kept the loop for 40 ms."""


class Output(Protocol):
    """Where one answer is written. Its methods raise ConnectionError when the device has left."""

    @property
    def plan(self) -> Plan:
        """Of the answer."""
        ...

    @property
    def transport(self) -> asyncio.Transport:
        """Of the connection."""
        ...

    async def begin(self) -> None:
        """Write the head; the first piece follows at once."""
        ...

    async def write(self, piece: memoryview) -> None:
        """Write the next of the body; returns when it was copied and the device may get more."""
        ...

    async def end(self) -> None:
        """That was all."""
        ...


class HttpOutput:
    """Through the HTTP server."""

    def __init__(self, exchange: Exchange, plan: Plan) -> None:
        self.plan = plan
        self.transport = _transport(exchange)
        self.response = web.StreamResponse(status=plan.status, headers=plan.headers)
        self.write = self.response.write
        self.end = self.response.write_eof
        self._exchange = exchange

    async def begin(self) -> None:
        self._exchange.response = self.response
        await self.response.prepare(self._exchange.http)


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
        """Send what `plan` says of `answer`, through the HTTP server. Raises like `blob`."""
        output = HttpOutput(exchange, plan)
        await self.blob(exchange, device, answer, output)
        return output.response

    async def blob(
        self, record: Record, device: Device, answer: BlobAnswer, output: Output
    ) -> None:
        """Send what the plan of `output` says of `answer`. Whoever calls holds a request's slot.

        Raises what the stream raises before its first byte; after that the connection is cut and
        `record.error` says why.
        """
        key = device_key(device)
        async with (
            self._watched(record, device, answer.request, output.transport),
            self._pulls.streams.hold(key),
        ):
            if self._pulls.rates is not None:
                await self._pulls.rates.stream(key)
            async with aclosing(await answer.open()) as stream:
                await self._send(record, device, stream, output)

    async def send_ready(
        self, record: Record, device: Device, ready: ReadyBlob, output: Output
    ) -> None:
        """As `blob`, what is open already; a request's slot is taken here. Its stream is closed."""
        key = device_key(device)
        async with (
            aclosing(ready.stream),
            self._watched(record, device, ready.request, output.transport),
            self._pulls.requests.hold(key),
            self._pulls.streams.hold(key),
        ):
            await self._send(record, device, ready.stream, output)

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
        output = HttpOutput(exchange, plan)
        if request is None:
            return await self._send_pieces(exchange, device, data, output)
        async with self._watched(exchange, device, request, transport):
            return await self._send_pieces(exchange, device, data, output)

    @asynccontextmanager
    async def _watched(
        self,
        record: Record,
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
                record.error = watched.ended_by

    async def _send_pieces(
        self, exchange: Exchange, device: Device, data: bytes, output: HttpOutput
    ) -> web.StreamResponse:
        await _begin(exchange, output)
        view = memoryview(data)
        for at in range(0, len(view), PIECE_BYTES):
            self._peers.check(output.transport)
            piece = view[at : at + PIECE_BYTES]
            await output.write(piece)
            exchange.bytes_sent += len(piece)
            if self._pulls.rates is not None:
                await self._pulls.rates.sent(device_key(device), len(piece))
        await output.end()
        exchange.complete = True
        return output.response

    async def _send(
        self, record: Record, device: Device, stream: BlobStream, output: Output
    ) -> None:
        record.cache = stream.outcome
        plan, rates = output.plan, self._pulls.rates
        chunks = aiter(stream.chunks(plan.start, plan.stop))
        chunk = await anext(chunks, None)
        # The guard's next round may come after a small blob's end.
        self._peers.check(output.transport)
        record.first_byte = self._clock.monotonic()
        await _begin(record, output)
        expected = plan.stop - plan.start
        turn = 0
        try:
            while chunk is not None:
                size = len(chunk)
                # The view is ours until the next is asked for; the transport has encrypted it,
                # and so copied it, when write() has handed it over.
                await output.write(chunk)
                record.bytes_sent += size
                if rates is not None:
                    await rates.sent(device_key(device), size)
                turn += size
                if turn >= TURN_BYTES:
                    turn = 0
                    await asyncio.sleep(0)
                chunk = await anext(chunks, None)
            if record.bytes_sent != expected:
                raise Integrity(f"The stream ended after {record.bytes_sent} of {expected} bytes.")
            await output.end()
        except FacadeError as error:
            record.error = error
            output.transport.abort()
            return
        record.complete = True


async def _begin(record: Record, output: Output) -> None:
    record.status, record.begun = output.plan.status, True
    await output.begin()


def _transport(exchange: Exchange) -> asyncio.Transport:
    transport = exchange.http.transport
    if transport is None:
        raise ConnectionResetError("The device has left.")
    return transport
