"""One GET or HEAD over a connection of the pool.

aiohttp's `ClientSession` prepares each request for whatever may be asked of it: redirects, cookies, bodies,
proxies, hooks. That is half of what asking a registry for a blob costs, and nothing of it is wanted there.

Guarantees: pool, connecting, parser and answer are aiohttp's, with the checks of `transport` on the way; the
answer's head is there within the time given, whatever the registry sends meanwhile; a connection on
which something came unasked is not used, and one that was left in the middle never again; a request that
finds its connection dropped is sent once more, over another. Only printable ASCII goes out.
"""

import asyncio
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_reqrep import RequestInfo
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from aiohttp.http import StreamWriter
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

READ_BUFFER_BYTES = 256 * 1024
"""Reading pauses at twice this many unread bytes: large enough that a chunk is worth its overhead,
small enough that a stream costs well under 1 MiB."""
MAX_FIELD_BYTES = 16 * 1024
"""Longest header field accepted; presigned Locations are long."""
MAX_FIELDS = 100

_MAX_PLACES = 256
_AT_ONCE_SECONDS = 0.001
"""What aiohttp is given when no time is left: it takes 0, and less, for as long as it lasts."""
_NO_TIMER = TimerNoop()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where requests go: an origin, and the certificates that it is believed by.

    Arguments:
        request: tells the connector the way; never sent itself.
        info: what an answer says of its request: the origin only, for it may be shown.
    """

    request: aiohttp.ClientRequest
    info: RequestInfo
    host: str


class DirectRequests:
    """Sends them. Belongs to the running loop.

    Arguments:
        connector: whose connections they go over, without a proxy.
        connect_seconds: one attempt at DNS, TCP and TLS together.
    """

    def __init__(self, connector: aiohttp.BaseConnector, connect_seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = connector
        self._timeout = _connecting(connect_seconds)
        self._connect_seconds = connect_seconds
        self._written = StreamWriter(BaseProtocol(self._loop), self._loop)
        self._places: dict[tuple[str, str, ssl.SSLContext | bool], _Place] = {}

    async def send(
        self,
        method: str,
        url: URL,
        fields: Mapping[str, str],
        *,
        context: ssl.SSLContext | bool,
        within: float,
    ) -> aiohttp.ClientResponse:
        """Send one request and return its answer's head; the caller closes it.

        Arguments:
            fields: the header, all but Host.
            context: for https.
            within: seconds until the head must be there.

        Raises aiohttp.ClientError, OSError (TimeoutError: not there in time); ValueError when it may not be sent.
        """
        place = self._place(url, context)
        head = _head(method, url, place.host, fields)
        deadline = self._loop.time() + within
        try:
            return await self._once(method, url, place, head, deadline)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            return await self._once(method, url, place, head, deadline)

    def _place(self, url: URL, context: ssl.SSLContext | bool) -> _Place:
        key = url.scheme, url.raw_authority, context
        place = self._places.get(key)
        if place is None:
            origin = url.origin()
            if len(self._places) >= _MAX_PLACES:
                self._places.pop(next(iter(self._places)))
            place = self._places[key] = _Place(
                aiohttp.ClientRequest("GET", origin, loop=self._loop, ssl=context),
                RequestInfo(origin, "GET", CIMultiDictProxy(CIMultiDict()), origin),
                origin.host_port_subcomponent or "",
            )
        return place

    async def _once(
        self, method: str, url: URL, place: _Place, head: bytes, deadline: float
    ) -> aiohttp.ClientResponse:
        connection = await self._connect(place, deadline)
        protocol = connection.protocol
        assert protocol is not None, "it was given out just now"
        response: aiohttp.ClientResponse | None = None
        alarm = self._loop.call_at(deadline, protocol.set_exception, TimeoutError())
        try:
            transport = protocol.transport
            if transport is None or protocol.should_close:  # it ended, or spoke unasked
                raise aiohttp.ServerDisconnectedError
            protocol.set_response_params(
                timer=_NO_TIMER,
                skip_payload=method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
                max_line_size=MAX_FIELD_BYTES,
                max_field_size=MAX_FIELD_BYTES,
                max_headers=MAX_FIELDS,
            )
            transport.write(head)
            response = aiohttp.ClientResponse(
                method,
                url,
                writer=None,  # all is written
                continue100=None,
                timer=_NO_TIMER,
                request_info=place.info,
                traces=[],
                loop=self._loop,
                session=None,  # type: ignore[arg-type]  # it is for guessing charsets
                stream_writer=self._written,
            )
            return await response.start(connection)
        except BaseException:
            if response is not None:
                response.close()
            connection.close()
            raise
        finally:
            alarm.cancel()

    async def _connect(self, place: _Place, deadline: float) -> Connection:
        left, timeout = deadline - self._loop.time(), self._timeout
        if left < self._connect_seconds:
            timeout = _connecting(max(left, _AT_ONCE_SECONDS))
        try:
            return await self._connector.connect(place.request, traces=[], timeout=timeout)
        except TimeoutError as error:
            if timeout is not self._timeout:
                raise
            raise aiohttp.ConnectionTimeoutError from error


def _connecting(seconds: float) -> aiohttp.ClientTimeout:
    # To the point: aiohttp rounds more than its threshold up to a full second.
    return aiohttp.ClientTimeout(total=None, connect=seconds, ceil_threshold=math.inf)


def _head(method: str, url: URL, host: str, fields: Mapping[str, str]) -> bytes:
    lines = [f"{method} {url.raw_path_qs} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    text = "".join(lines)
    if not (text.isascii() and text.isprintable()):  # a line's end in one would begin another
        raise ValueError("What is to be sent is not printable ASCII.")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
