"""One exchange that stays open: frames there, and an answer to each, in their order.

Guarantees: as `calls` and `answers`, for what is said again and again (each time a request through both HTTP
sides costs several times as much); who waits long for the next frame is let wait. An answer is empty or what the other side raised, after which
the exchange is over, as after anything that went wrong on the way; what is said next begins another one.
A frame is four bytes of length and a body, as in the feed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
from aiohttp import web

from facade.link.answers import BODY_SECONDS, MAX_REQUEST_BYTES, Intake, Work, told
from facade.link.calls import CONNECT_SECONDS, MAX_ERROR_BYTES, OCTETS, Caller
from facade.link.errors_codec import error_in, error_out
from facade.link.feed_codec import LENGTH_BYTES
from facade.link.strict import Malformed, dump, load


class Talk:
    """The side that speaks, one frame at a time; the exchange begins with the first. Call `close` at the end.

    Arguments:
        route: where `Listening.handle` answers.
    """

    def __init__(self, caller: Caller, route: str) -> None:
        self._caller = caller
        self._route = route
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._response: aiohttp.ClientResponse | None = None

    async def say(self, body: bytes, *, seconds: float) -> None:
        """Return when it was taken.

        Arguments:
            seconds: for all of it.

        Raises Away, or what the other side raised.
        """
        try:
            async with self._caller.bounded(seconds):
                content = (await self._sent(len(body).to_bytes(LENGTH_BYTES, "big") + body)).content
                length = int.from_bytes(await content.readexactly(LENGTH_BYTES), "big")
                if length > MAX_ERROR_BYTES:
                    raise Malformed(f"more than {MAX_ERROR_BYTES} bytes")
                if length:
                    raise error_in(load(await content.readexactly(length)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the exchange, if there is one."""
        if self._response is not None:
            self._frames.put_nowait(b"")
            self._response.close()
            self._response = None

    async def _sent(self, frame: bytes) -> aiohttp.ClientResponse:
        """Where its answer will be."""
        if self._response is not None:
            content = self._response.content
            if content.at_eof() or content.exception() is not None:  # the other side came anew
                self.close()
        if self._response is None:
            self._frames = asyncio.Queue()
            # Before the request: aiohttp sends its head with the first piece, not earlier.
            self._frames.put_nowait(frame)
            self._response = await self._caller.session.post(
                self._route,
                data=_until_empty(self._frames),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                allow_redirects=False,
            )
            if self._response.status != 200:
                raise Malformed(f"status {self._response.status}")
        else:
            self._frames.put_nowait(frame)
        return self._response


async def _until_empty(frames: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while frame := await frames.get():
        yield frame


class Listening:
    """The side that answers, to any number of speakers.

    Arguments:
        work: what is done with each body; what it gives is not sent.
        intake: bounds what is read and worked on, together with others.
    """

    def __init__(self, work: Work, intake: Intake) -> None:
        self._work = work
        self._intake = intake
        self._open: set[asyncio.Transport] = set()

    def end(self) -> None:
        """Break all exchanges off."""
        for transport in self._open:
            transport.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one speaker until it ends."""
        response = web.StreamResponse()
        response.content_type = OCTETS
        if (transport := request.transport) is None:  # it went already
            return response
        self._open.add(transport)
        try:
            await response.prepare(request)
            with suppress(ConnectionError):  # a worker that is killed goes in the middle of a write
                while await self._hear(request.content, response):
                    pass
        finally:
            self._open.discard(transport)
        return response

    async def _hear(self, content: aiohttp.StreamReader, response: web.StreamResponse) -> bool:
        """Answer one frame; False: it was the last."""
        try:
            head = await content.readexactly(LENGTH_BYTES)
        except asyncio.IncompleteReadError:
            return False
        taken: list[int] = []
        answer = b""
        try:
            await self._work(await self._body(content, int.from_bytes(head, "big"), taken))
        except asyncio.IncompleteReadError:
            return False
        except Exception as error:  # noqa: BLE001 - told apart, and logged, there
            answer = dump(error_out(told(error)))
        finally:
            self._intake.give_back(sum(taken))
        await response.write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
        return not answer

    async def _body(self, content: aiohttp.StreamReader, left: int, taken: list[int]) -> bytes:
        """What follows a length. Raises Malformed when it is too long or too slow, IncompleteReadError."""
        if left > MAX_REQUEST_BYTES:
            raise Malformed(f"more than {MAX_REQUEST_BYTES} bytes")
        parts = [content.read_nowait(left)]
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    self._intake.take(len(parts[-1]))
                    taken.append(len(parts[-1]))
                    left -= len(parts[-1])
                    if not left:
                        return b"".join(parts)
                    parts.append(await content.read(left))
                    if not parts[-1]:
                        raise asyncio.IncompleteReadError(b"".join(parts), left)
        except TimeoutError:
            raise Malformed(f"not whole within {BODY_SECONDS:g} s") from None
