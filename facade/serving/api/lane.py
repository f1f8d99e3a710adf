"""The short way of what is at hand, asked for in words that were understood before.

    TLS ⇄ Lane ⇄ the HTTP server's protocol, made when it is first needed

Guarantees: nothing is answered beside what the HTTP server has in hand on a connection, nor beside what
the lane itself has in hand: what comes meanwhile is kept, at most two TLS records, and is the HTTP
server's. What the HTTP server is not needed for, it knows nothing of: it neither closes a connection on
which a blob is being sent, nor does it wait for it (`Lanes.finish` does).
What is answered, and how, `shortcut` says.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from aiohttp import hdrs, web

from facade.serving.api.eager import begin
from facade.serving.api.understood import Understood, is_one_head
from facade.serving.identity.stream import TlsTransport

Server = Callable[[], asyncio.Protocol]

MAX_LATER_BYTES = 16 * 1024
"""Kept of what comes while a lane has something in hand, before it stops reading."""


class Shortcut(Protocol):
    """Answers without the HTTP server."""

    def answer(self, lane: "Lane", asked: bytes) -> bool:
        """Answer `asked`, or begin to (`Lane.carry`), if that can be done at once; whether it was."""
        ...


class Lanes:
    """What the lanes of one port share.

    Arguments:
        idle_seconds: after which the HTTP server closes a connection that it has no request from.
    """

    def __init__(self, *, shortcut: Shortcut, understood: Understood, idle_seconds: float) -> None:
        self.shortcut = shortcut
        self.understood = understood
        self.spell = idle_seconds / 2
        """So long after its last request the HTTP server surely keeps a connection."""
        self.ended_at: float | None = None
        """When the drain began: from then on nothing new is answered."""
        self._open: set[Lane] = set()
        self._none_open = asyncio.Event()

    def before(self, server: Server) -> "Callable[[], Lane]":
        """Makes the lane of each connection, in front of `server`'s protocols."""
        return lambda: Lane(self, server)

    @property
    def open(self) -> "frozenset[Lane]":
        """Those that the HTTP server knows nothing of."""
        return frozenset(self._open)

    def enter(self, lane: "Lane") -> None:
        """The HTTP server knows nothing of this one."""
        self._open.add(lane)
        self._none_open.clear()

    def leave(self, lane: "Lane") -> None:
        """It does, or it has ended."""
        self._open.discard(lane)
        if not self._open:
            self._none_open.set()

    def close(self) -> None:
        """End the connections that the HTTP server knows nothing of, each with its answer; answer
        nothing new.
        """
        if self.ended_at is None:
            self.ended_at = asyncio.get_running_loop().time()
        for lane in self.open:
            lane.close()

    async def finish(self, seconds: float) -> None:
        """`close`, and return when they have ended, and what became of them is written down; who takes
        longer than `seconds` from then is cut.
        """
        self.close()
        if self._open and self.ended_at is not None:
            try:
                async with asyncio.timeout_at(self.ended_at + seconds):
                    await self._none_open.wait()
            except TimeoutError:
                for lane in self.open:
                    lane.transport.abort()
                await self._none_open.wait()


class Lane(asyncio.Protocol):
    """One connection's: answers what it can, and hands everything else to the HTTP server."""

    __slots__ = (
        "_asked",
        "_busy",
        "_closing",
        "_drained",
        "_lanes",
        "_later",
        "_lease",
        "_loop",
        "_paused",
        "_returned",
        "_sending",
        "_server",
        "_way",
        "transport",
    )

    transport: TlsTransport
    _lease: TlsTransport

    def __init__(self, lanes: Lanes, server: Server) -> None:
        self._lanes = lanes
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._way: asyncio.Protocol | None = None  # the HTTP server's protocol
        self._asked: bytes | None = None  # what it has in hand, when that is one plain request
        self._busy = False  # it has something in hand, or may have
        self._returned = 0.0
        self._sending: asyncio.Task[None] | None = None  # an answer of the lane's own
        self._later = b""  # what came meanwhile
        self._closing = False  # the connection ends with what is being sent
        self._paused = False  # the device does not take what was written
        self._drained: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("TlsTransport", transport)
        self._lanes.enter(self)
        if self._lanes.ended_at is not None:
            self.close()  # its handshake was under way when the drain began

    def data_received(self, data: bytes) -> None:
        if self._sending is not None:
            self._later += data
            if len(self._later) >= MAX_LATER_BYTES:
                # Not before: who is not read from is not seen to leave, and may have much to wait for.
                self.transport.pause_reading()
            return
        # Who sends on without waiting gets one answer a turn from the HTTP server: a thousand in one
        # go would keep everybody else waiting.
        if self._free and not self.transport.more and self._lanes.shortcut.answer(self, data):
            return
        self._hand_over(data)

    def answered(self, *, closing: bool) -> None:
        """A request was answered without the HTTP server.

        Arguments:
            closing: the connection ends with that.
        """
        if closing:
            self.transport.close()
        elif self._way is None:
            self.transport.answered()

    def carry(self, sending: Coroutine[Any, Any, None], *, closing: bool) -> None:
        """Answer a request by `sending`, which writes to the transport and is cancelled when the
        device leaves; nothing else is answered until it has ended. It raises nothing.
        """
        self._closing = closing
        self._sending = begin(self._carried(sending))
        if self._sending is not None:
            self.transport.request_read()
            self._take_back()

    async def drained(self) -> None:
        """Return when the device has taken so much that it may get more."""
        if self._paused:
            self._drained = self._loop.create_future()
            await self._drained

    def returned(self, http: web.BaseRequest, status: int) -> None:
        """The HTTP server has answered one request, wholly."""
        asked, self._asked = self._asked, None
        if asked is None:
            return  # it had more than that in hand, and may still have
        self._lanes.understood.learn(asked, http, status)
        self._busy = not http.keep_alive or http.body_exists or hdrs.UPGRADE in http.headers
        self._returned = self._loop.time()

    def close(self) -> None:
        """End the connection, after what is being sent."""
        if self._sending is not None:
            self._closing = True
        else:
            self.transport.close()

    def eof_received(self) -> bool | None:
        return self._way.eof_received() if self._way is not None else False

    def pause_writing(self) -> None:
        self._paused = True
        if self._way is not None:
            self._way.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._way is not None:
            self._way.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sending is not None:
            self._sending.cancel()
        else:
            self._lanes.leave(self)
        if self._way is not None:
            self._way.connection_lost(exc)

    async def _carried(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except BaseException:
            # Nobody knows how much of it is out: nothing may follow it.
            if not self.transport.is_closing():
                self.transport.abort()
            raise
        finally:
            self._sending = None
            if not self.transport.is_closing():
                self._go_on()
            else:
                self._lanes.leave(self)  # it was cut: nothing waits to be taken by the device

    def _go_on(self) -> None:
        """What was being sent is: take up what came meanwhile."""
        self.answered(closing=self._closing)
        later, self._later = self._later, b""
        if later and not self._closing:
            self.transport.resume_reading()  # before: the HTTP server may want no more of it
            self._hand_over(later)

    def _hand_over(self, data: bytes) -> None:
        """Let the HTTP server answer."""
        self._asked = data if not self._busy and is_one_head(data) else None
        self._busy = True
        if self._way is None:
            self._lanes.leave(self)
            self._lease = self.transport.lease()
            self._way = self._server()
            self._way.connection_made(self._lease)
            if self._paused:
                self._way.pause_writing()
        self._way.data_received(data)

    def _take_back(self) -> None:
        """From the HTTP server, which has nothing in hand, and would close what it takes for idle."""
        way, self._way = self._way, None
        if way is not None:
            self._lease.end()
            way.connection_lost(None)
            self._lanes.enter(self)

    @property
    def _free(self) -> bool:
        if self._busy or self._paused or self._lanes.ended_at is not None:
            return False
        # The HTTP server would close a connection over which it hears nothing: it must, now and then.
        return self._way is None or self._loop.time() - self._returned < self._lanes.spell
