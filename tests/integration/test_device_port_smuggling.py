"""Requests whose end can be read in two ways, and others that no client sends, over the real device port.

What two readers could take apart differently is refused with 400, the connection closed, and nothing behind
it is answered; whatever else comes is answered as HTTP says. Never a 5xx, never more memory than a
connection may have, and the next connection is served.
"""

import asyncio
import ssl
import tempfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facade.reasons import Reason
from tests.support.background_loop import BackgroundLoop, background_loop
from tests.support.facade_app import FacadeApp
from tests.support.pki import client_context

SECONDS = 20.0
BEHIND = b"GET /whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""What would be smuggled; its answer names the device."""
CHUNKED = b"Transfer-Encoding: chunked"
NOTHING = b"0\r\n\r\n"
MAX_HELD_BYTES = 16 * 1024 * 1024
"""By both ends, which are one process here."""


def get(*fields: bytes, target: bytes = b"/v2/", method: bytes = b"GET") -> bytes:
    line = b" ".join([method, target, b"HTTP/1.1"])
    return b"\r\n".join([line, b"Host: x", *fields, b"", b""])


@dataclass(frozen=True)
class Port:
    """A device port, and a device's way to it."""

    loop: BackgroundLoop
    app: FacadeApp
    context: ssl.SSLContext

    def answers(self, data: bytes) -> list[tuple[int, bytes]]:
        """(status, body) of each answer until the server closes."""
        return self.loop.run(self._answers(data))

    async def _answers(self, data: bytes) -> list[tuple[int, bytes]]:
        async with asyncio.timeout(SECONDS):
            reader, writer = await self._connect()
            try:
                writer.write(data)
                said = await reader.read()
            except ConnectionError:
                return []
            finally:
                writer.transport.abort()
        return list(_split(said))

    def serves(self) -> bool:
        """Whether a proper request on a new connection is answered."""
        ((status, body),) = self.answers(BEHIND)
        return status == 200 and b'"fleet"' in body

    def send(self, data: bytes, count: int) -> None:
        """`data`, and `count` bytes behind it, unless the port stops reading before that, or closes."""
        self.loop.run(self._send(data, count))

    async def _send(self, data: bytes, count: int) -> None:
        _reader, writer = await self._connect()
        block = b"x" * (1024 * 1024)
        try:
            writer.write(data)
            for _ in range(count // len(block)):
                writer.write(block)
                async with asyncio.timeout(1):
                    await writer.drain()
        except (TimeoutError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("localhost", self.app.port, ssl=self.context, family=2)


def _split(said: bytes) -> Iterator[tuple[int, bytes]]:
    while said:
        head, _, said = said.partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        assert status.startswith(b"HTTP/1."), status
        headers = dict(field.lower().split(b": ", 1) for field in fields)
        length = int(headers.get(b"content-length", b"0"))
        yield int(status[9:12]), said[:length]
        said = said[length:]


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    with tempfile.TemporaryDirectory() as folder, background_loop() as loop:
        app = loop.enter(lambda: FacadeApp(Path(folder)))
        yield Port(loop, app, client_context(app.server_ca, app.ca.device()))
        text = app.metrics.render().decode()
        assert f'facade_refusals_total{{reason="{Reason.INTERNAL}"}} 0.0' in text


AMBIGUOUS = {
    "a length and chunks": get(b"Content-Length: 5", CHUNKED) + NOTHING,
    "chunks and a length": get(CHUNKED, b"Content-Length: 5") + NOTHING,
    "chunked and identity": get(CHUNKED, b"Transfer-Encoding: identity") + NOTHING,
    "chunked, identity": get(b"Transfer-Encoding: chunked, identity") + NOTHING,
    "identity": get(b"Transfer-Encoding: identity") + NOTHING,
    "xchunked": get(b"Transfer-Encoding: xchunked") + NOTHING,
    "a space before the colon": get(b"Transfer-Encoding : chunked") + NOTHING,
    "chunked on a second line": get(b"Transfer-Encoding:\r\n chunked") + NOTHING,
    "chunks in HTTP/1.0": get(CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0") + NOTHING,
    "the same length twice": get(b"Content-Length: 5", b"Content-Length: 5") + b"hello",
    "two lengths": get(b"Content-Length: 5", b"Content-Length: 0") + b"hello",
    "a list of lengths": get(b"Content-Length: 5, 5") + b"hello",
    "a length with a sign": get(b"Content-Length: +5") + b"hello",
    "a negative length": get(b"Content-Length: -5") + b"hello",
    "a hexadecimal length": get(b"Content-Length: 0x5") + b"hello",
    "a length with an underscore": get(b"Content-Length: 1_0") + b"hellohello",
    "a length in other digits": get(b"Content-Length: \xd9\xa5") + b"hello",
    "a length of 20 digits": get(b"Content-Length: " + b"9" * 20) + b"hello",
    "no chunk size": get(CHUNKED) + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size of 40 digits": get(CHUNKED) + b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n",
    "chunks with bare LF": get(CHUNKED) + b"5\nhello\n0\n\n",
    "a length in the trailer": get(CHUNKED) + b"0\r\nContent-Length: 50\r\n\r\n",
    "a folded field": get(b"X: a\r\n b"),
    "bare LF": get().replace(b"\r\n", b"\n"),
    "bare LF between fields": get(b"X: y\nZ: z"),
    "bare CR": get().replace(b"\r\n", b"\r"),
    "NUL in a field": get(b"X: a\0b"),
    "NUL in the target": get(target=b"/v2/\0"),
    "a field without a name": get(b": x"),
    "a line without a colon": get(b"nonsense"),
    "a space in a name": get(b"X Y: z"),
    "two hosts": get(b"Host: y"),
    "no host": b"GET /v2/ HTTP/1.1\r\n\r\n",
    "a long target": get(target=b"/v2/" + b"a" * 100_000),
    "a long field": get(b"X: " + b"a" * 100_000),
    "many fields": get(*[b"X-%d: y" % n for n in range(2000)]),
    "another version": get().replace(b"HTTP/1.1", b"HTTP/9.9"),
    "a version of two digits": get().replace(b"HTTP/1.1", b"HTTP/1.10"),
    "a protocol in small letters": get().replace(b"HTTP/1.1", b"http/1.1"),
    "a method in small letters": get(method=b"get"),
    "an unknown method": get(method=b"BREW"),
    "a long method": get(method=b"A" * 5000),
    "a space first": b" " + get(),
    "tabs": get().replace(b" /v2/ ", b"\t/v2/\t"),
    "no target": get(target=b""),
    "a target without a slash": get(target=b"v2/"),
    "a star on GET": get(target=b"*"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_with_all_behind_it(port: Port, what: str) -> None:
    answers = port.answers(AMBIGUOUS[what] + BEHIND)
    assert [status for status, _ in answers] in ([400], [])
    assert not any(b'"fleet"' in body for _, body in answers)
    assert port.serves()


CLEAR: dict[str, tuple[bytes, list[int]]] = {
    "a body on GET": (get(b"Content-Length: 5") + b"hello", [200]),
    "chunks on GET": (get(CHUNKED) + b"5;x=y\r\nhello\r\n0\r\nT: z\r\n\r\n", [200]),
    "chunks on POST": (get(CHUNKED, method=b"POST") + b"5\r\nhello\r\n0\r\n\r\n", [405]),
    "HTTP/1.0 that stays": (
        get(b"Connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
        [200],
    ),
    "pipelined": (get() * 300, [200] * 300),
    "an absolute target": (get(target=b"http://evil.example/v2/"), [200]),
    "an absolute target with a user": (get(target=b"https://u:p@x/v2/"), [200]),
    "two slashes": (get(target=b"//v2/"), [404]),
    "another host in the path": (get(target=b"//evil.example/v2/"), [404]),
    "a dot": (get(target=b"/./v2/"), [404]),
    "dots": (get(target=b"/v2/../v2/"), [404]),
    "encoded dots": (get(target=b"/v2/%2e%2e/v2/"), [404]),
    "a backslash": (get(target=b"/v2\\..\\v2"), [404]),
    "a fragment": (get(target=b"/v2/#x"), [200]),
    "a star": (get(target=b"*", method=b"OPTIONS"), [404]),
    "CONNECT": (get(target=b"evil.example:443", method=b"CONNECT"), [404]),
    "TRACE": (get(method=b"TRACE"), [405]),
    "a websocket": (get(b"Upgrade: websocket", b"Connection: Upgrade"), [200]),
    "an expectation": (
        get(b"Expect: 100-continue", b"Content-Length: 5") + b"hello",
        [200],
    ),
    "another expectation": (get(b"Expect: miracles"), [200]),
    "overrides": (get(b"X-HTTP-Method-Override: PUT", b"X-Original-URL: /whoami"), [200]),
    "empty lines": (b"\r\n" * 100 + get(), [200]),
}


@pytest.mark.parametrize("what", CLEAR)
def test_what_is_clear_is_answered_and_so_is_what_is_behind_it(port: Port, what: str) -> None:
    request, expected = CLEAR[what]
    answers = [answer for answer in port.answers(request + BEHIND) if answer[0] != 100]
    assert [status for status, _ in answers] == [*expected, 200]
    assert b'"fleet"' in answers[-1][1]
    assert not any(b'"fleet"' in body for _, body in answers[:-1])


@pytest.mark.parametrize(
    "opening",
    [
        get(b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMA"),
        get(b"Upgrade: websocket", b"Connection: Upgrade"),
        get(target=b"x:443", method=b"CONNECT"),
        get()[:-2] + b"X: ",
        get(b"Content-Length: 99999999999", method=b"PUT"),
        get(CHUNKED, method=b"POST") + b"fffffff\r\n",
        get(CHUNKED) + b"1;",
    ],
    ids=["h2c", "websocket", "CONNECT", "a field", "a length", "a chunk", "a chunk's extension"],
)
def test_what_follows_without_end_is_not_gathered(port: Port, opening: bytes) -> None:
    tracemalloc.start()
    try:
        port.send(opening, 2 * MAX_HELD_BYTES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_HELD_BYTES
    assert port.serves()


LENGTHS = st.sampled_from([b"0", b"5", b" 5 ", b"05", b"+5", b"5,5", b"", b"5\x0b", b"1e1"])
CODINGS = st.sampled_from([b"chunked", b"Chunked", b"chunked;q=1", b"\x0bchunked", b"gzip", b""])
NAMES = st.sampled_from([b"Content-Length", b"content-length", b"Content_Length"])
FRAMING = st.lists(
    st.tuples(NAMES, LENGTHS) | st.tuples(st.just(b"Transfer-Encoding"), CODINGS), max_size=3
)
BODIES = st.sampled_from([b"", b"hello", NOTHING, b"5\r\nhello\r\n0\r\n\r\n", b"\r\n"])


@settings(max_examples=150, deadline=None)
@given(framing=FRAMING, body=BODIES)
def test_made_up_framing_smuggles_nothing(
    port: Port, framing: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """A second answer comes only for what everybody reads as a second request."""
    request = get(*(b": ".join(pair) for pair in framing))
    answers = port.answers(request + body + BEHIND)
    assert all(status in (200, 400) for status, _ in answers)
    if any(b'"fleet"' in value for _, value in answers):
        assert _ends_behind(body, framing), "the answer of what was in the body, or behind another"


def _ends_behind(body: bytes, framing: list[tuple[bytes, bytes]]) -> bool:
    """Whether `body` is the one that the fields announce, and they are clear. Empty lines before the next
    request are none of it (RFC 9112, 2.2).
    """
    lengths = [value.strip() for name, value in framing if name.lower() == b"content-length"]
    named = [value.strip().lower() for name, value in framing if name == b"Transfer-Encoding"]
    codings = [coding for coding in named if coding]  # an empty list of codings is none
    if len(lengths) + len(codings) > 1:
        return False
    if codings:
        return codings[0] == b"chunked" and body.endswith(NOTHING)
    length = int(lengths[0]) if lengths and lengths[0].isdigit() else 0
    return len(body) >= length and not body[length:].strip(b"\r\n")
