"""Sending a blob: from the verified stream to the socket, in big writes.

Guarantees: nothing is sent before the stream gave its first bytes, so what fails until then is a
proper answer; what fails later cuts the connection, so no client takes the body for complete; a
stream is always closed, whoever leaves first. Memory per stream is one view of the store's.
"""

import asyncio

from aiohttp import web

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError, Integrity
from facade.serving.api.answers import Plan
from facade.serving.api.exchange import Exchange
from facade.serving.api.peer import Peers
from facade.serving.blobs.port import BlobStream
from facade.serving.pulls.guard import StreamGuard
from facade.serving.pulls.service import BlobAnswer, PullService, device_key


class BlobSender:
    """Sends blobs."""

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
        transport = exchange.http.transport
        if transport is None:
            raise ConnectionResetError("The device has left.")
        watched = self._guard.watch(
            device,
            answer.request,
            check=lambda: self._peers.check(transport),
            # Closing the transport also cancels whoever waits for bytes on its behalf.
            stop=transport.abort,
        )
        try:
            async with self._pulls.streams.hold(device_key(device)):
                stream = await answer.open()
                exchange.cache = stream.outcome
                try:
                    return await self._send(exchange, stream, plan, transport)
                finally:
                    await stream.aclose()
        finally:
            self._guard.forget(watched)
            if watched.ended_by is not None:
                exchange.error = watched.ended_by

    async def _send(
        self,
        exchange: Exchange,
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
        try:
            while chunk is not None:
                size = len(chunk)
                # The view is ours until the next is asked for; the transport has encrypted it,
                # and so copied it, when write() has handed it over.
                await response.write(chunk)
                exchange.bytes_sent += size
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
