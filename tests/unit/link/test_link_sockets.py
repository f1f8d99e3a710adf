"""The sockets between our processes: how they are made, left behind and taken."""

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from aiohttp import web

from facade.errors import Invalid
from facade.link.calls import Away, Caller
from facade.link.unix import MAX_PATH_BYTES, private_folder, served
from facade.reasons import Reason
from tests.support.ports import US


def _app() -> web.Application:
    async def hello(request: web.Request) -> web.Response:
        return web.Response(body=b"hello")

    app = web.Application()
    app.router.add_get("/", hello)
    return app


async def _ask(path: Path) -> bytes:
    caller = Caller(path, "The other side", Reason.INTERNAL)
    try:
        return await caller.call("GET", "/", limit=10, seconds=20)
    finally:
        await caller.close()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_socket_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o777)
    path = private_folder(folder) / "x.sock"
    async with served(_app(), path, allowed=US):
        assert (_mode(folder), _mode(path)) == (0o700, 0o600)
        assert await _ask(path) == b"hello"
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_socket_can_belong_to_the_workers_user(tmp_path: Path) -> None:
    path = private_folder(tmp_path / "run", owner=12345) / "x.sock"
    async with served(_app(), path, allowed=US, owner=12345):
        assert (path.stat().st_uid, path.parent.stat().st_uid) == (12345, 12345)
        assert (_mode(path.parent), _mode(path)) == (0o700, 0o600)


async def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with served(_app(), path, allowed=US):
        assert await _ask(path) == b"hello"


async def test_a_socket_in_use_is_not_taken_from_who_has_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    async with served(_app(), path, allowed=US):
        with pytest.raises(Invalid, match="is in use: another process listens there"):
            async with served(_app(), path, allowed=US):
                pass
        assert await _ask(path) == b"hello"


async def test_a_file_is_not_taken_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(Invalid, match="is in the way of a socket"):
        async with served(_app(), path, allowed=US):
            pass
    assert path.read_text() == "precious"


async def test_a_successors_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    async with served(_app(), path, allowed=US):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
            inode = path.stat().st_ino
    assert path.stat().st_ino == inode


async def test_a_path_that_is_too_long_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_PATH_BYTES)
    with pytest.raises(Invalid, match="Choose a folder with a shorter path"):
        async with served(_app(), path, allowed=US):
            pass
    with pytest.raises(Invalid, match="Choose a folder with a shorter path"):
        Caller(path, "The other side", Reason.INTERNAL)


async def test_a_folder_that_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match="cannot be made: Not a directory"):
        private_folder(tmp_path / "file" / "run")
    with pytest.raises(Invalid, match="cannot be made: No such file"):
        async with served(_app(), tmp_path / "none" / "x.sock", allowed=US):
            pass


async def test_a_call_after_the_end_is_refused(tmp_path: Path) -> None:
    async with served(_app(), tmp_path / "x.sock", allowed=US):
        caller = Caller(tmp_path / "x.sock", "The other side", Reason.INTERNAL)
        assert await caller.call("GET", "/", limit=10, seconds=20) == b"hello"
        await caller.close()
        with pytest.raises(Away, match="this process is ending"):
            await caller.call("GET", "/", limit=10, seconds=20)


async def test_a_cancelled_caller_is_cancelled_and_not_told_that_the_other_side_is_away(
    tmp_path: Path,
) -> None:
    asked = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/", hang)
    async with served(app, tmp_path / "x.sock", allowed=US):
        caller = Caller(tmp_path / "x.sock", "The other side", Reason.INTERNAL)
        asking = asyncio.create_task(caller.call("GET", "/", limit=10, seconds=20))
        await asyncio.wait_for(asked.wait(), 20)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await caller.close()
