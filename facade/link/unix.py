"""The Unix sockets themselves: binding, serving, who may connect.

Guarantees: a socket is reachable by its owner alone (mode 0600, in a folder of mode 0700), and a peer
whose user is not among those allowed (SO_PEERCRED, unix(7)) is cut before a byte of it is read. A
socket that another process still listens on is an error, one that was left behind is replaced.
Does not guarantee which program the peer is: processes of one user can read each other's memory.
"""

import asyncio
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
from aiohttp import web

from facade.errors import Invalid

log = structlog.get_logger(__name__)

BACKLOG = 128
MAX_PATH_BYTES = 107
"""`sockaddr_un.sun_path` less its closing zero (unix(7))."""
KEEP_ALIVE_SECONDS = 75.0
"""Longer than a client keeps an idle connection, so that none is closed under a request."""
SHUTDOWN_SECONDS = 2.0
"""For requests that run; feeds are told to end."""
_CREDENTIALS = struct.Struct("3i")


def private_folder(path: Path, *, owner: int | None = None) -> Path:
    """Make the folder, or make it private again. Raises Invalid.

    Arguments:
        owner: the uid it shall belong to, when that is not ours.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        if owner is not None:
            os.chown(path, owner, -1)
    except OSError as error:
        raise Invalid(f"The folder {path} for sockets cannot be made: {error.strerror}.") from error
    return path


@asynccontextmanager
async def served(
    app: web.Application, path: Path, *, allowed: Collection[int], owner: int | None = None
) -> AsyncIterator[None]:
    """Answer with `app` on the Unix socket `path` within.

    Arguments:
        allowed: uids that may connect.
        owner: the uid that the socket shall belong to, when that is not ours; root only.

    Raises Invalid, naming the socket, when it cannot be had.
    """
    sock, inode = _bind(path, owner)
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=SHUTDOWN_SECONDS,
        handle_signals=False,
        handler_cancellation=True,  # who is gone needs no answer
        auto_decompress=False,
    )
    try:
        await runner.setup()
        await _GatedSite(runner, sock, allowed).start()
        yield
    finally:
        await runner.cleanup()
        sock.close()
        _remove(path, inode)


class _GatedSite(web.BaseSite):
    """aiohttp's server behind the look at who connects."""

    def __init__(
        self, runner: web.AppRunner, sock: socket.socket, allowed: Collection[int]
    ) -> None:
        super().__init__(runner, backlog=BACKLOG)
        self._sock = sock
        self._allowed = frozenset(allowed)

    @property
    def name(self) -> str:
        return f"unix:{self._sock.getsockname()}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: _Gate(server, self._allowed), sock=self._sock, backlog=self._backlog
        )


class _Gate(asyncio.Protocol):
    """Hands a connection on when its peer may come in, and cuts it otherwise."""

    def __init__(self, make: Callable[[], asyncio.Protocol], allowed: frozenset[int]) -> None:
        self._make = make
        self._allowed = allowed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        pid, uid = peer(transport)
        if uid not in self._allowed:
            log.warning("link_peer_refused", uid=uid, pid=pid)
            transport.abort()
            return
        protocol = self._make()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def peer(transport: asyncio.BaseTransport) -> tuple[int, int]:
    """The (pid, uid) of who connected, as the kernel noted them at that moment."""
    sock: socket.socket = transport.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(raw)
    return pid, uid


def checked(path: Path) -> str:
    """The path as the kernel takes it. Raises Invalid when it is too long."""
    text = str(path)
    if len(os.fsencode(text)) > MAX_PATH_BYTES:
        raise Invalid(
            f"The socket {path} has a longer name than Unix allows ({MAX_PATH_BYTES} bytes). "
            "Choose a folder with a shorter path."
        )
    return text


def _remove(path: Path, inode: int) -> None:
    """Unless a successor's socket stands there by now."""
    with suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()


def _bind(path: Path, owner: int | None) -> tuple[socket.socket, int]:
    where = checked(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        sock.bind(where)
        path.chmod(0o600)  # nobody can connect yet: it does not listen
        if owner is not None:
            os.chown(path, owner, -1)
        inode = path.lstat().st_ino
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise Invalid(f"The socket {path} cannot be made: {error.strerror}.") from error
    except BaseException:
        sock.close()
        raise
    return sock, inode


def _clear(path: Path) -> None:
    """Remove a socket that was left behind. Raises Invalid when it is none, or in use."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Invalid(f"{path} is in the way of a socket. Remove it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass  # its queue is full: somebody listens
    raise Invalid(f"The socket {path} is in use: another process listens there.")
