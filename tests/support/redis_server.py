"""Debian's `redis-server` on a free port: alone, as a cluster of one, or watched by a sentinel.

Guarantees: nothing is written to disk but its configuration and log; it answers when the context is
entered, and is ended by its process id when it is left. It can be stopped, frozen and started again
on the same port in between.
"""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis

from tests.support.docker_registry import free_port

BINARY = "redis-server"
PASSWORD = "redis-pa55/word@here"
"""Holds characters that a URL has to encode."""
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0


@dataclass
class RedisServer:
    """One server process."""

    folder: Path
    port: int
    arguments: Sequence[str] = ()
    password: str | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """As `[redis] url`, without TLS."""
        user = "" if self.password is None else ":redis-pa55%2Fword%40here@"
        return f"redis://{user}127.0.0.1:{self.port}"

    def client(self) -> Redis:
        """A client of the test's own; close it."""
        return Redis(host="127.0.0.1", port=self.port, password=self.password)

    async def values(self) -> dict[bytes, bytes]:
        """Every string that it holds."""
        async with self.client() as client:
            found: dict[bytes, bytes] = {}
            async for name in client.scan_iter(count=1000):
                value = await client.get(name)
                assert isinstance(value, bytes | None)
                found[bytes(name)] = value or b""
            return found

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = ["--requirepass", self.password] if self.password else []
        port = [] if self.tls else ["--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                BINARY,
                *port,
                *("--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
                *("--dir", str(self.folder)),
                *own,
                *self.arguments,
                stdout=log,
                stderr=log,
            )
        await answers(self.port, self.tls)

    async def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the process; what it held is gone."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        async with asyncio.timeout(_STOP_SECONDS):
            await self.process.wait()

    def freeze(self) -> None:
        """Keep its connections, and answer nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


async def answers(port: int, tls: ssl.SSLContext | None = None) -> None:
    """Return when something of Redis answers on `port` of 127.0.0.1."""
    async with asyncio.timeout(_START_SECONDS):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
                writer.write(b"PING\r\n")
                said = await reader.readline()
                writer.close()
                if said:
                    return
            except OSError:
                pass
            await asyncio.sleep(0.02)


@asynccontextmanager
async def redis_server(
    folder: Path,
    *arguments: str,
    password: str | None = None,
    port: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[RedisServer]:
    """A running server.

    Arguments:
        arguments: further ones of redis-server.
        password: what clients have to give (`PASSWORD`).
        tls: how a client finds out whether it answers, when it speaks TLS (given in `arguments`).
    """
    server = RedisServer(folder, port or free_port(), arguments, password, tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
