"""Requests that no client sends: never a 500, never a hang, never the end of the service."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.facade_app import FacadeApp
from tests.support.pki import client_context

DIGEST = "sha256:" + "a" * 64
SECONDS = 10


@pytest.fixture
async def facade(tmp_path: Path) -> AsyncIterator[FacadeApp]:
    async with FacadeApp(tmp_path) as app:
        yield app


async def raw(facade: FacadeApp, request: bytes) -> bytes:
    """What comes back for these very bytes, until the server closes or a whole answer is there."""
    context = client_context(facade.server_ca, facade.ca.device())
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection(
            "localhost", facade.port, ssl=context, family=2
        )
        try:
            writer.write(request)
            await writer.drain()
            head = await reader.read(65536)
        finally:
            writer.transport.abort()
    return head


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


HOSTILE = {
    "dot segments": get(f"/v2/../../etc/passwd/manifests/{DIGEST}"),
    "encoded dot segments": get(f"/v2/%2e%2e/%2e%2e/manifests/{DIGEST}"),
    "an encoded slash": get(f"/v2/ghcr.io%2Forg%2Fapp/manifests/{DIGEST}"),
    "a null byte": get(f"/v2/ghcr.io/org/app%00/manifests/{DIGEST}"),
    "half a percent sign": get("/v2/%/%zz/manifests/x"),
    "no UTF-8": get("/v2/%ff%fe/manifests/x"),
    "two slashes": get(f"//v2//ghcr.io//manifests/{DIGEST}"),
    "an absolute target": get(f"https://evil.example/v2/ghcr.io/a/manifests/{DIGEST}"),
    "an authority target": get("evil.example:443", method="CONNECT"),
    "a star": get("*", method="OPTIONS"),
    "an unknown method": get("/v2/", method="BREW"),
    "a long path": get("/v2/" + "a/" * 3000 + f"manifests/{DIGEST}"),
    "a longer path": get("/v2/" + "a" * 20_000),
    "many headers": get("/v2/", *[f"X-{n}: y" for n in range(500)]),
    "a long header": get("/v2/", "X: " + "y" * 20_000),
    "a namespace of a megabyte": get("/v2/a/manifests/x?ns=" + "b" * 7000),
    "two namespaces": get(f"/v2/a/b/manifests/{DIGEST}?ns=ghcr.io&ns=quay.io"),
    "a namespace with credentials": get(f"/v2/a/b/manifests/{DIGEST}?ns=u:p@ghcr.io"),
    "a port that is none": get(f"/v2/ghcr.io:99999/a/manifests/{DIGEST}"),
    "an odd range": get("/v2/", "Range: bytes=" + "9" * 5000 + "-"),
    "a negative length": get("/v2/", "Content-Length: -1"),
    "two lengths": get("/v2/", "Content-Length: 1", "Content-Length: 2"),
    "a length and chunks": get("/v2/", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "an expectation": get("/v2/", "Expect: 100-continue"),
    "another expectation": get("/v2/", "Expect: miracles"),
    "an upgrade": get("/v2/", "Upgrade: websocket", "Connection: upgrade"),
    "HTTP/0.9": b"GET /v2/\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no HTTP": b"\x00\x01\x02\x03\r\n\r\n",
    "a folded header": b"GET /v2/ HTTP/1.1\r\nHost: x\r\n folded\r\nConnection: close\r\n\r\n",
    "a metadata file elsewhere": get("/tuf/..%2f..%2fserver.key"),
    "a metadata file with a null byte": get("/tuf/1.root.json%00"),
    "a target elsewhere": get("/targets/../dev/x.y"),
    "a target of other scripts": get("/targets/d%C3%A9v/app/x.v1"),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_request_gets_an_answer_that_is_no_500(
    facade: FacadeApp, what: str
) -> None:
    answer = await raw(facade, HOSTILE[what])
    assert not answer or answer.startswith(b"HTTP/"), answer[:100]
    assert answer[9:10] in (b"2", b"4", b"1", b"") or answer[9:12] == b"503", answer[:200]
    async with facade.device() as kiosk, kiosk.get("/v2/") as ping:
        assert ping.status == 200


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tail=st.text(max_size=60), ns=st.none() | st.text(max_size=20))
def test_whatever_the_path_says_it_is_answered(tail: str, ns: str | None) -> None:
    async def ask() -> int:
        query = "" if ns is None else f"?ns={quote(ns, safe='')}"
        with tempfile.TemporaryDirectory() as folder:
            async with FacadeApp(Path(folder)) as facade:
                answer = await raw(facade, get(f"/v2/{quote(tail)}{query}"))
                return int(answer[9:12])

    assert asyncio.run(ask()) in (200, 400, 403, 404, 405)


async def test_a_client_that_hangs_up_in_the_middle_of_its_request(facade: FacadeApp) -> None:
    context = client_context(facade.server_ca, facade.ca.device())
    for _ in range(5):
        _reader, writer = await asyncio.open_connection(
            "localhost", facade.port, ssl=context, family=2
        )
        writer.write(b"GET /v2/ghcr.io/a/b/manif")
        await writer.drain()
        writer.transport.abort()
    async with facade.device() as kiosk, kiosk.get("/v2/") as ping:
        assert ping.status == 200


async def test_pipelined_requests_are_answered_in_order(facade: FacadeApp) -> None:
    one = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    last = get("/whoami")
    context = client_context(facade.server_ca, facade.ca.device())
    reader, writer = await asyncio.open_connection("localhost", facade.port, ssl=context, family=2)
    writer.write(one * 3 + last)
    answer = await asyncio.wait_for(reader.read(-1), SECONDS)
    writer.close()
    assert answer.count(b"HTTP/1.1 200") == 4
    assert answer.index(b"{}") < answer.index(b'"fleet"')
