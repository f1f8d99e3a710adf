"""Made-up requests against the real device port over its socket: answered, soon, and never with a 500.

Every answer to a request that happens to be right is checked too: the right bytes, or a proper refusal.
"""

import asyncio
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facade.oci.digest import Digest
from facade.reasons import Reason
from facade.server import LINGER_SECONDS
from tests.support.background_loop import BackgroundLoop, background_loop
from tests.support.facade_app import FacadeApp, path
from tests.support.image import one_layer_image
from tests.support.pki import client_context
from tests.support.registry import Registry

SECONDS = 10.0
PAYLOAD = bytes(range(256)) * 300
"""Longer than what is held back."""
STATUSES = {200, 206, 304, 400, 403, 404, 405, 411, 413, 414, 416, 417, 426, 431, 501, 505}
"""Anything but a fault of ours. 502 to 504 belong to registries, and this one is well."""
FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Port:
    """A device port with one signed image."""

    loop: BackgroundLoop
    app: FacadeApp
    context: ssl.SSLContext
    blob: str
    manifest: str

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """(status, body); 0 when the connection was closed without an answer."""
        return self.loop.run(self._ask(request))

    def closes_within(self, request: bytes, seconds: float) -> bool:
        """Whether the server ends the connection that soon, answered and left open by us."""
        return self.loop.run(self._closes(request, seconds))

    async def _closes(self, request: bytes, seconds: float) -> bool:
        reader, writer = await asyncio.open_connection(
            "localhost", self.app.port, ssl=self.context, family=2
        )
        try:
            writer.write(request)
            async with asyncio.timeout(seconds):
                await reader.read()  # all of it
        except TimeoutError:
            return False
        finally:
            writer.transport.abort()
        return True

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection(
                "localhost", self.app.port, ssl=self.context, family=2
            )
            try:
                writer.write(request)
                await writer.drain()
                return await _answer(reader, body=not request.startswith(b"HEAD "))
            finally:
                writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, *, body: bool) -> tuple[int, bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, b""
    status, *fields = head.decode("latin-1").split("\r\n")
    assert status.startswith("HTTP/"), status
    headers = dict(field.lower().split(": ", 1) for field in fields if field)
    # What HEAD is answered with has no body, whatever its length says (RFC 9110, 9.3.2); waiting for
    # one means waiting until the server gives up on a body that *we* announced and did not send.
    length = int(headers.get("content-length", "0")) if body else 0
    try:
        content = await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        content = error.partial  # cut
    return int(status[9:12]), content


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    with tempfile.TemporaryDirectory() as folder, background_loop() as loop:
        registry = loop.enter(Registry)
        app = loop.enter(lambda: FacadeApp(Path(folder)))
        image = one_layer_image(PAYLOAD)
        loop.run(app.sign(registry, "org/app", image))
        yield Port(
            loop,
            app,
            client_context(app.server_ca, app.ca.device()),
            path(registry, "org/app", "blobs", Digest.of(PAYLOAD)),
            path(registry, "org/app", "manifests", image.index),
        )
        text = app.metrics.render().decode()
        assert f'facade_refusals_total{{reason="{Reason.INTERNAL}"}} 0.0' in text


METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
WORDS = st.sampled_from(
    """v2 manifests blobs referrers tags list _catalog uploads tuf targets whoami ghcr.io docker.io
    localhost org app library .. . %2e%2e sha256: latest 1.root.json timestamp.json dev other a__5000
    [::1]:5000 xn--bcher-kva.ch sha256:short""".split()  # noqa: SIM905
) | st.sampled_from(["", "sha256:" + "a" * 64, "sha512:" + "b" * 128, "sha256:" + "A" * 64])
SEGMENTS = WORDS | st.text(max_size=12).map(quote) | st.text("%/:.@?#&=+;,[]_-~", max_size=6)
PATHS = st.lists(SEGMENTS, max_size=8).map(lambda parts: "/" + "/".join(parts))
QUERIES = st.none() | st.tuples(
    st.sampled_from(["ns", "n", "last", "artifactType", "x"]), SEGMENTS
).map("=".join)
FIELD_NAMES = st.sampled_from(
    """Range If-Range If-None-Match If-Match Accept Accept-Encoding Authorization Content-Length
    Transfer-Encoding Content-Encoding Expect Upgrade Connection X-Forwarded-For X-SSL-Client-Cert
    Host TE Trailer Cookie Docker-Upload-UUID""".split()  # noqa: SIM905
)
FIELD_VALUES = (
    st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
    | st.sampled_from(
        ["chunked", "gzip", "100-continue", "identity", "0", "-1", "1", "9" * 30, "*"]
    )
    | st.sampled_from(["bytes=0-0", "bytes=-1", "bytes=5-2", "bytes=0-1,3-4", 'W/"x"', "close"])
)
FIELDS = st.lists(st.tuples(FIELD_NAMES, FIELD_VALUES), max_size=5)


def request(method: str, target: str, fields: list[tuple[str, str]], body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


@FUZZ
@given(method=METHODS, target=PATHS, query=QUERIES, fields=FIELDS, body=st.binary(max_size=30))
def test_made_up_requests(
    port: Port,
    method: str,
    target: str,
    query: str | None,
    fields: list[tuple[str, str]],
    body: bytes,
) -> None:
    whole = target if query is None else f"{target}?{query}"
    # A body that is announced and does not come is waited for: that is another test's matter.
    fields = [(name, value) for name, value in fields if name not in ("Content-Length", "Expect")]
    fields = [(name, value) for name, value in fields if name != "Transfer-Encoding"]
    fields.append(("Content-Length", str(len(body))))
    status, _ = port.ask(request(method, whole, fields, body))
    assert status in STATUSES


@FUZZ
@given(fields=FIELDS, kind=st.sampled_from(["blob", "manifest"]), method=METHODS)
def test_made_up_headers_on_what_may_be_pulled(
    port: Port, fields: list[tuple[str, str]], kind: str, method: str
) -> None:
    fields = [(name, value) for name, value in fields if name not in ("Content-Length", "Expect")]
    status, body = port.ask(request(method, getattr(port, kind), fields))
    assert status in STATUSES | {0}  # 0: framing so broken that there is nothing to answer
    if status == 200 and method == "GET" and kind == "blob":
        assert body == PAYLOAD


NUMBERS = st.integers(0, len(PAYLOAD) + 10) | st.sampled_from([10**18, 2**63, 2**64])
RANGES = (
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"bytes={pair[0]}-{pair[1]}")
    | NUMBERS.map(lambda number: f"bytes={number}-")
    | NUMBERS.map(lambda number: f"bytes=-{number}")
    | st.text("bytes=0123456789-, \t", max_size=20)
)


@FUZZ
@given(value=RANGES, head=st.booleans())
def test_made_up_ranges_give_just_those_bytes(port: Port, value: str, head: bool) -> None:
    method = "HEAD" if head else "GET"
    status, body = port.ask(request(method, port.blob, [("Range", value)]))
    assert status in (200, 206, 416)
    if head or status == 416:
        return
    if status == 200:
        assert body == PAYLOAD
        return
    first, _, last = value.strip().removeprefix("bytes=").strip().partition("-")
    if first.strip():
        stop = int(last) + 1 if last.strip() else len(PAYLOAD)
        assert body == PAYLOAD[int(first) : stop]
    else:
        assert body == PAYLOAD[-int(last) :]
    assert body


@FUZZ
@given(data=st.data())
def test_a_right_request_with_some_bytes_changed(port: Port, data: st.DataObject) -> None:
    right = bytearray(request("GET", port.manifest, [("Accept", "*/*")]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(right) - 5))  # the end stays: it must be a whole request
        right[at] = data.draw(st.integers(0, 255))
    status, _ = port.ask(bytes(right))
    assert status in STATUSES | {0}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_announced_body_that_does_not_come_holds_nothing_up(port: Port, method: str) -> None:
    announced = [("Transfer-Encoding", "chunked")]
    status, body = port.ask(request(method, port.blob, announced))
    assert (status, body) == (200, PAYLOAD if method == "GET" else b"")
    assert port.closes_within(request(method, port.blob, announced), LINGER_SECONDS + 2)


def test_after_all_that_it_serves(port: Port) -> None:
    status, body = port.ask(request("GET", port.blob, []))
    assert (status, body) == (200, PAYLOAD)
