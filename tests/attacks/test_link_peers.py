"""Whoever is at the other end of a socket between our processes: another user, or one gone bad."""

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog.testing
from aiohttp import web

from facade.clock import SystemClock
from facade.errors import Unavailable, Upstream
from facade.link.answers import MAX_REQUEST_BYTES, Intake
from facade.link.cache_client import MAX_HEALTH_BYTES, SocketCachePort
from facade.link.codec import authorization_request_out
from facade.link.control_client import MAX_AUTHORIZATION_BYTES, SocketControlPort
from facade.link.control_server import control_app
from facade.link.feed_codec import LENGTH_BYTES, Frame, Position, frame_out
from facade.link.strict import dump
from facade.link.unix import private_folder, served
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.connection import Connection, Scope
from facade.wings import ConnectionUsed, ControlSnapshot
from tests.support.authorizers import FixedAuthorizer
from tests.support.broker import APP, BASIC, BEARER, broker_parts, header_of
from tests.support.canaries import Canaries
from tests.support.control import connect
from tests.support.ports import (
    US,
    Dropped,
    control_linked,
    control_served,
    control_side,
)
from tests.support.unix_tap import tapped

PATIENCE = 60.0
CONNECTION = Connection("c1", RegistryHost("registry.example"), "static")
NOBODY = 65534
ASK = """
import os, socket, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
link = socket.socket(socket.AF_UNIX)
link.settimeout(20)
try:
    link.connect(sys.argv[1])
    link.sendall(b"POST /position HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n")
    print(repr(link.recv(4096)))
except OSError as error:
    print(type(error).__name__)
"""


@contextmanager
def _open_folder() -> Iterator[Path]:
    """A folder that every user may pass (pytest's own may not be)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


async def _as_nobody(path: Path) -> str:
    asking = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", ASK, str(path), stdout=subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(asking.communicate(), PATIENCE)
    return said.decode().strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_another_user_does_not_even_reach_the_socket(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_open_folder())
        side = await stack.enter_async_context(control_side(tmp_path, FixedAuthorizer()))
        path = private_folder(folder / "run") / "control.sock"
        async with served(control_app(side.port, clock=SystemClock()), path, allowed=US):
            assert await _as_nobody(path) == "PermissionError", "the folder is closed"
            path.parent.chmod(0o755)
            assert await _as_nobody(path) == "PermissionError", "so is the socket"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
async def test_another_user_who_reaches_the_socket_is_cut_before_a_byte_is_read(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_open_folder())
        side = await stack.enter_async_context(control_side(tmp_path, FixedAuthorizer()))
        path = folder / "control.sock"
        app = control_app(side.port, clock=SystemClock())
        with structlog.testing.capture_logs() as logs:
            async with served(app, path, allowed=US):
                path.chmod(0o666)
                assert await _as_nobody(path) in ("b''", "ConnectionResetError", "BrokenPipeError")
        assert [(line["event"], line["uid"]) for line in logs] == [("link_peer_refused", NOBODY)]
        app = control_app(side.port, clock=SystemClock())
        async with served(app, path, allowed={NOBODY}):
            path.chmod(0o666)
            assert "200 OK" in await _as_nobody(path), "where that user is the workers' it may"


@asynccontextmanager
async def _raw(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        "http://x", connector=aiohttp.UnixConnector(str(path))
    ) as session:
        yield session


async def test_a_worker_gone_bad_gets_words_and_harms_nobody(tmp_path: Path) -> None:
    deep = b"[" * 200_000
    true = dump(authorization_request_out(CONNECTION, Scope(None), (), None))
    bodies = [b"", b"junk", deep, true[:-1], true.replace(b"registry.example", b"\\u0000"), b"[]"]
    async with AsyncExitStack() as stack:
        side = await stack.enter_async_context(control_side(tmp_path, FixedAuthorizer("Bearer x")))
        path = await stack.enter_async_context(control_served(side.port, tmp_path))
        port = await stack.enter_async_context(control_linked(path))
        raw = await stack.enter_async_context(_raw(path))
        for route in ("/authorization", "/closure-manifest"):
            for body in (*bodies, bytes(MAX_REQUEST_BYTES + 1)):
                async with raw.post(route, data=io.BytesIO(body)) as response:
                    said = json.loads(await response.read())
                    assert response.status == 422
                    assert said["kind"] == "Invalid", said
                    assert ("more than" in said["message"]) == (len(body) > MAX_REQUEST_BYTES)
        for method, route in (("GET", "/"), ("DELETE", "/feed"), ("POST", "/../feed")):
            async with raw.request(method, route) as response:
                assert response.status in (404, 405)
        spoiled = dump({"sender": "s", "number": 1, "events": [["pulled"]]})
        for body in (*bodies, spoiled):
            assert (await _said(raw, [body], len(body)))["kind"] == "Invalid"
        said = await _said(raw, [b"x"], MAX_REQUEST_BYTES + 1)
        assert "more than" in said["message"]
        for cut in (b"", b"\0\0", b"\0\0\0\x09half"):
            async with raw.post("/reports", data=io.BytesIO(cut)) as response:
                assert await response.read() == b"", "it went in the middle: nobody waits for words"
        assert header_of(await port.authorization(CONNECTION, Scope(None))) == "Bearer x"
        assert side.dropped.count == 0


async def test_requests_of_one_worker_do_not_fill_the_memory_of_the_control_side(
    tmp_path: Path,
) -> None:
    piece, go = bytes(256 * 1024), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield piece
        await go.wait()
        yield b"x"

    async with AsyncExitStack() as stack:
        side = await stack.enter_async_context(control_side(tmp_path, FixedAuthorizer("Bearer x")))
        app = control_app(side.port, clock=SystemClock(), intake=Intake(2 * 1024 * 1024))
        await stack.enter_async_context(served(app, tmp_path / "c", allowed=US))
        raw = await stack.enter_async_context(_raw(tmp_path / "c"))
        size = 3 * len(piece) + 1
        asked = [asyncio.create_task(_said(raw, slowly(), size)) for _ in range(6)]
        done, waiting = await asyncio.wait(
            asked, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        assert {task.result()["kind"] for task in done} == {"Unavailable"}
        go.set()
        kinds = {(await task)["kind"] for task in waiting}
        assert "Invalid" in kinds, "those who fit were read to the end: it is no report"
        again = await _said(raw, [piece] * 7, 7 * len(piece))
        assert again["kind"] == "Invalid", "what they took was given back"


async def _said(
    raw: aiohttp.ClientSession, pieces: Iterable[bytes] | AsyncIterator[bytes], size: int
) -> dict[str, str]:
    """The answer to one batch of reports of `size` bytes."""

    async def body() -> AsyncIterator[bytes]:
        yield size.to_bytes(LENGTH_BYTES, "big")
        if isinstance(pieces, AsyncIterator):
            async for piece in pieces:
                yield piece
        else:
            for piece in pieces:
                yield piece

    async with raw.post("/reports", data=body()) as response:
        assert response.status == 200
        length = int.from_bytes(await response.content.readexactly(LENGTH_BYTES), "big")
        said: dict[str, str] = json.loads(await response.content.readexactly(length))
        assert await response.read() == b"", "an error ends the exchange"
        return said


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
POSITION = Position("e", 1)
GOOD = frame_out(Frame(POSITION, ControlSnapshot(1)))
BEAT = frame_out(Frame(POSITION))


def _feeding(*frames: bytes, status: int = 200) -> Answer:
    async def feed(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for frame in frames:
            await response.write(frame)
        await asyncio.Event().wait()
        return response

    return feed


@asynccontextmanager
async def _false_control(path: Path, feed: Answer, **routes: Answer) -> AsyncIterator[Path]:
    app = web.Application()
    app.router.add_get("/feed", feed)
    for name, answer in routes.items():
        app.router.add_post(f"/{name.replace('_', '-')}", answer)
    async with served(app, path, allowed=US):
        yield path


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        (_feeding(b"\xff\xff\xff\xff" + b"x" * 100), "more than 67108864 bytes"),
        (_feeding(b"\x00\x00\x00\x05{}{}{"), "not JSON"),
        (_feeding(b"\x00\x00\x00\x02[]"), "not an object"),
        (_feeding(BEAT), "a snapshot is missing"),
        (_feeding(GOOD, status=500), "status 500"),
    ],
    ids=["oversize", "junk", "wrong kind", "beat first", "status"],
)
async def test_a_feed_that_is_none_is_not_believed(
    tmp_path: Path, feed: Answer, words: str
) -> None:
    async with _false_control(tmp_path / "c.sock", feed) as path:
        port = SocketControlPort(path, clock=SystemClock(), observer=Dropped())
        refused = pytest.raises(Unavailable, match="does not answer just now")
        with structlog.testing.capture_logs() as logs, refused:
            await port.start(within=1.5)
        assert [line["event"] for line in logs] == ["control_away"], "said once"
        assert words in logs[0]["error"]
        assert port.snapshot() == ControlSnapshot()


async def test_a_beat_that_names_what_we_do_not_hold_ends_the_feed(tmp_path: Path) -> None:
    """A snapshot was lost on the way: only a fresh feed brings it."""
    opened: list[int] = []

    async def feed(request: web.Request) -> web.StreamResponse:
        opened.append(1)
        later = Position("e", 2)
        frames = [GOOD, frame_out(Frame(later))]
        if len(opened) > 1:
            frames = [frame_out(Frame(later, ControlSnapshot(2)))]
        return await _feeding(*frames)(request)

    async with _false_control(tmp_path / "c.sock", feed) as path, control_linked(path):
        async with asyncio.timeout(PATIENCE):
            while len(opened) < 2:  # noqa: ASYNC110 - what happens there has no event here
                await asyncio.sleep(0.01)


def _saying(body: bytes, status: int = 200) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _saying(b""),
        _saying(b"junk"),
        _saying(b'{"header":"Bearer x","id":"","expires_at":null,"more":1}'),
        _saying(b'{"header":1,"id":"","expires_at":null}'),
        _saying(b" " * (MAX_AUTHORIZATION_BYTES + 1)),
        _saying(b"junk", 422),
        _saying(b'{"kind":"SystemExit"}', 422),
        _saying(b"", 302),
        _saying(b"", 500),
    ],
    ids=range(9),
)
async def test_an_answer_that_is_none_is_no_authorization(tmp_path: Path, answer: Answer) -> None:
    feed = _feeding(GOOD)
    routes = {"authorization": answer, "closure_manifest": _saying(b"2")}
    async with (
        _false_control(tmp_path / "c.sock", feed, **routes) as path,
        control_linked(path) as port,
    ):
        with pytest.raises(Unavailable, match="The control side") as caught:
            await port.authorization(CONNECTION, Scope(None))
        assert caught.value.reason is Reason.CONTROL_UNAVAILABLE
        with pytest.raises(Unavailable):
            await port.closure_manifest(CONNECTION.host, Repository("a"), Digest.of(b"x"))


async def test_a_worker_that_answers_with_anything_is_away(tmp_path: Path) -> None:
    path = tmp_path / "w.sock"
    app = web.Application()
    app.router.add_get("/health", _saying(b" " * (MAX_HEALTH_BYTES + 1)))
    app.router.add_post("/refresh", _saying(b'"yes"'))
    app.router.add_post("/status", _saying(b"{}"))
    app.router.add_post("/verify", _saying(b'{"value":[1,-1],"error":null}'))
    app.router.add_post("/prune", _saying(b'{"value":null,"error":{"kind":"Invalid"}}'))
    app.router.add_post("/warm", _saying(b"\n" * 1000 + b'{"value":{},"error":null}'))
    async with served(app, path, allowed=US):
        port = SocketCachePort(path)
        for ask in (port.health, port.refresh, port.status, port.verify, port.prune):
            with pytest.raises(Unavailable, match="A serving process does not answer just now"):
                await ask()
        with pytest.raises(Unavailable, match="A serving process does not answer just now"):
            await port.warm(CONNECTION, Repository("a"), Digest.of(b"x"), 1)
        await port.close()


async def test_no_stored_secret_crosses_the_socket_but_what_must_be_presented(
    tmp_path: Path,
) -> None:
    """The token crosses; the password that it was bought with does not, whatever goes wrong."""
    canaries = Canaries()
    password = canaries.add("password", "canary-stored-Pa55word+/=")
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(broker_parts(tmp_path / "b"))
        side = await stack.enter_async_context(control_side(tmp_path / "c", parts.broker))
        side.port._connections = parts.store
        connection = await connect(parts.store, secret=password)
        path = await stack.enter_async_context(control_served(side.port, tmp_path))
        tap = await stack.enter_async_context(tapped(path))
        port = await stack.enter_async_context(control_linked(tap.path))
        assert port.snapshot().connections == {connection.host: connection}

        got = await port.authorization(connection, APP, challenge=BEARER)
        assert header_of(got) == "Bearer token-1"
        assert parts.service.asked[0].password == password, "it was used, on the other side"
        second = await port.authorization(connection, APP, challenge=BEARER, refused=got.id)
        parts.service.failures.append(Upstream("No.", reason=Reason.UPSTREAM_REFUSED, status=401))
        with pytest.raises(Upstream):
            await port.authorization(connection, APP, challenge=BEARER, refused=second.id)
        with pytest.raises(Upstream):  # what was remembered of the failure
            await port.authorization(connection, APP, challenge=BEARER)
        port.report(ConnectionUsed(connection.id, 1.0, "refused"))
        await port.refresh()
        await parts.store.remove(connection.host)
        await port.refresh()
        assert b"Bearer token-1" in tap.to_client
        canaries.heard("the socket", tap.heard)
        canaries.heard("what is printed of it", f"{got!r} {got} {port!r} {vars(port)!r}")
        assert canaries.found() == []
        assert "token-1" not in f"{got!r} {got}"


async def test_a_password_that_the_registry_itself_wants_is_found_by_that_search(
    tmp_path: Path,
) -> None:
    """So the search above can find something: here it must cross, inside an Authorization."""
    canaries = Canaries()
    password = canaries.add("password", "canary-stored-Pa55word+/=")
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(broker_parts(tmp_path / "b"))
        side = await stack.enter_async_context(control_side(tmp_path / "c", parts.broker))
        connection = await connect(parts.store, secret=password)
        path = await stack.enter_async_context(control_served(side.port, tmp_path))
        tap = await stack.enter_async_context(tapped(path))
        port = await stack.enter_async_context(control_linked(tap.path))
        await port.authorization(connection, APP, challenge=BASIC)
        canaries.heard("the socket", tap.heard)
        assert canaries.found() != []
