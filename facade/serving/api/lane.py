"""The short way of a manifest that is at hand, asked for in words that were understood before.

    TLS ⇄ Lane ⇄ the HTTP server's protocol, made when it is first needed

Guarantees: every answer is decided anew, as on the long way (`app.DevicePort`): who asks and whether the
device may still come in, freshness, signature, connection, slots; and it is written down alike.
There is no second parser: what the bytes of a request mean was said by the HTTP server, of these very
bytes. Whatever is not plain, is not at hand, or is to be refused takes the long way, untouched. While
the HTTP server has anything in hand on a connection nothing is answered beside it. Memory is bounded.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import cast

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from facade.clock import Clock
from facade.errors import FacadeError
from facade.oci.request import PullRequest, Role
from facade.serving.api.answers import entity
from facade.serving.api.exchange import Books, Record
from facade.serving.api.peer import Peers
from facade.serving.identity.stream import TlsTransport
from facade.serving.pulls.answers import ReadyManifest
from facade.serving.pulls.service import PullService

MAX_WORDS_BYTES = 2048
MAX_KNOWN = 1024
"""Requests remembered with what they mean. A fleet's devices ask in the same few words."""
MAX_FLEETS = 64
"""For so many fleets the answer to one of them is kept."""
_END = b"\r\n\r\n"
_CONDITIONS = (hdrs.IF_NONE_MATCH, hdrs.IF_RANGE, hdrs.RANGE, hdrs.UPGRADE)
"""With one of these the answer depends on more than what is asked for."""

Parse = Callable[[web.BaseRequest], PullRequest | FacadeError]
Server = Callable[[], asyncio.Protocol]


@dataclass(frozen=True, slots=True)
class Words:
    """What the bytes of a request mean.

    Arguments:
        status_line: of its answer, with what that says about the connection.
        closing: the connection ends with the answer.
        answers: by fleet: what was at hand, and the head of its answer.
    """

    method: str
    pull: PullRequest
    status_line: str
    closing: bool
    answers: dict[str, tuple[ReadyManifest, bytes]] = field(default_factory=dict)


class Lanes:
    """What the lanes of one port share.

    Arguments:
        parse: what a path asks for.
        idle_seconds: after which the HTTP server closes a connection that it has no request from.
    """

    def __init__(
        self,
        *,
        pulls: PullService,
        peers: Peers,
        books: Books,
        clock: Clock,
        ids: Iterator[str],
        parse: Parse,
        idle_seconds: float,
    ) -> None:
        self._pulls = pulls
        self._peers = peers
        self._books = books
        self._clock = clock
        self._ids = ids
        self._parse = parse
        self._known: dict[bytes, Words] = {}
        self._date = _Date(clock)
        self.open: set[Lane] = set()
        self.spell = idle_seconds / 2
        """So long after its last request the HTTP server surely keeps a connection."""

    def before(self, server: Server) -> "Callable[[], Lane]":
        """Makes the lane of each connection, in front of `server`'s protocols."""
        return lambda: Lane(self, server)

    def close(self) -> None:
        """End the connections that the HTTP server knows nothing of."""
        for lane in tuple(self.open):
            lane.close()

    def answer(self, transport: TlsTransport, asked: bytes) -> bool:
        """Answer `asked`, if that can be done at once; whether it was."""
        words = self._known.get(asked)
        if words is None:
            return False
        record = Record(next(self._ids), self._clock.monotonic(), words.method)
        try:
            device = self._peers.check(transport)
            before = words.answers.get(device.fleet)
            ready = self._pulls.ready(device, words.pull, before and before[0])
        except FacadeError:
            return False  # the long way says so, in full
        if ready is None:
            return False
        if before is None or before[0] is not ready:
            before = self._prepare(words, device.fleet, ready)
        body = b"" if words.method == hdrs.METH_HEAD else ready.data
        transport.write(b"%b%b\r\n\r\n%b" % (before[1], self._date.now(), body))
        record.device, record.pull, record.route = device, words.pull, "manifests"
        record.status, record.bytes_sent = 200, len(body)
        self._books.finished(record)
        if words.closing:
            transport.close()
        return True

    def understand(self, asked: bytes, http: web.BaseRequest, status: int) -> None:
        """The HTTP server read `asked` as `http`, and its answer had `status`."""
        if status != 200 or http.body_exists or any(name in http.headers for name in _CONDITIONS):
            return
        pull = self._parse(http)
        if not isinstance(pull, PullRequest) or pull.role is not Role.MANIFEST:
            return
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[asked] = Words(http.method, pull, _status_line(http), not http.keep_alive)

    def _prepare(
        self, words: Words, fleet: str, ready: ReadyManifest
    ) -> tuple[ReadyManifest, bytes]:
        headers = entity(words.pull.digest, ready.media_type, len(ready.data))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        made = ready, f"{words.status_line}{lines}Date: ".encode()
        if len(words.answers) >= MAX_FLEETS:
            words.answers.clear()
        words.answers[fleet] = made
        return made


class Lane(asyncio.Protocol):
    """One connection's: answers what it can, and hands everything else to the HTTP server."""

    __slots__ = (
        "_asked",
        "_busy",
        "_lanes",
        "_loop",
        "_paused",
        "_returned",
        "_server",
        "_transport",
        "_way",
    )

    _transport: TlsTransport

    def __init__(self, lanes: Lanes, server: Server) -> None:
        self._lanes = lanes
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._way: asyncio.Protocol | None = None  # the HTTP server's protocol
        self._asked: bytes | None = None  # what it has in hand, when that is one plain request
        self._busy = False  # it has something in hand, or may have
        self._paused = False  # the device does not take what was written
        self._returned = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("TlsTransport", transport)
        self._lanes.open.add(self)

    def data_received(self, data: bytes) -> None:
        # Who sends on without waiting gets one answer a turn from the HTTP server: a thousand in one
        # go would keep everybody else waiting.
        if self._free and not self._transport.more and self._lanes.answer(self._transport, data):
            if self._way is None:
                self._transport.answered()
            return
        self._asked = data if not self._busy and is_one_head(data) else None
        self._busy = True
        if self._way is None:
            self._way = self._begin_long_way()
        self._way.data_received(data)

    def returned(self, http: web.BaseRequest, status: int) -> None:
        """The HTTP server has answered one request, wholly."""
        asked, self._asked = self._asked, None
        if asked is None:
            return  # it had more than that in hand, and may still have
        self._lanes.understand(asked, http, status)
        self._busy = not http.keep_alive or http.body_exists or hdrs.UPGRADE in http.headers
        self._returned = self._loop.time()

    def close(self) -> None:
        """End the connection."""
        self._transport.close()

    def eof_received(self) -> bool | None:
        return self._way.eof_received() if self._way is not None else False

    def pause_writing(self) -> None:
        self._paused = True
        if self._way is not None:
            self._way.pause_writing()

    def resume_writing(self) -> None:
        self._paused = False
        if self._way is not None:
            self._way.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lanes.open.discard(self)
        if self._way is not None:
            self._way.connection_lost(exc)

    def _begin_long_way(self) -> asyncio.Protocol:
        self._lanes.open.discard(self)
        way = self._server()
        way.connection_made(self._transport)
        if self._paused:
            way.pause_writing()
        return way

    @property
    def _free(self) -> bool:
        if self._busy or self._paused:
            return False
        # The HTTP server would close a connection over which it hears nothing: it must, now and then.
        return self._way is None or self._loop.time() - self._returned < self._lanes.spell


class _Date:
    """The Date of an answer (RFC 9110, 6.6.1), made once a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._text = b""

    def now(self) -> bytes:
        """As of now."""
        second = int(self._clock.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True).encode()
        return self._text


def is_one_head(data: bytes) -> bool:
    """Whether `data` is one request's head, whole, and nothing else, in whatever way it is read."""
    return (
        len(data) <= MAX_WORDS_BYTES
        and data.find(_END) == len(data) - len(_END)
        and data.count(b"\n") == data.count(b"\r\n")
        and data.startswith((b"GET ", b"HEAD "))
    )


def _status_line(http: web.BaseRequest) -> str:
    """With the connection's header, where the version does not say it (RFC 9112, 9.3)."""
    version = f"HTTP/{http.version.major}.{http.version.minor} 200 OK\r\n"
    if http.version == HttpVersion11 and not http.keep_alive:
        return f"{version}Connection: close\r\n"
    if http.version == HttpVersion10 and http.keep_alive:
        return f"{version}Connection: keep-alive\r\n"
    return version
