"""Debian's `docker-registry` (CNCF distribution 2.8) as an upstream that is not ours.

Guarantees: a fresh registry on a free port with a folder of its own, open, with htpasswd, or with
token auth of a `TokenServer`; it has answered when the context is entered, and is stopped by its
process id when it is left. Its access log can be read to count requests.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from facade.oci.host import RegistryHost
from facade.upstream.connection import Connection, ConnectionSettings
from tests.support.ending import end
from tests.support.token_server import TokenServer

BINARY = "docker-registry"
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_LOG_LINE = re.compile(r'"([A-Z]+) (\S+) HTTP/[0-9.]+" (\d{3}) ')


@dataclass(frozen=True, slots=True)
class Logged:
    """One line of the access log."""

    method: str
    path: str
    status: int


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """A running registry."""

    port: int
    folder: Path
    pid: int

    @property
    def host(self) -> RegistryHost:
        return RegistryHost("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def connection(self, provider: str = "anonymous") -> Connection:
        return Connection(
            "docker-registry",
            self.host,
            provider,
            settings=ConnectionSettings(insecure=True),
        )

    def log(self) -> list[Logged]:
        """The requests that were answered so far, in order."""
        text = (self.folder / "log").read_text()
        return [
            Logged(method, path, int(status)) for method, path, status in _LOG_LINE.findall(text)
        ]

    def count(self, method: str, part: str) -> int:
        """How many requests of this method had `part` in their path and were let in (not 401)."""
        return sum(
            entry.method == method and part in entry.path and entry.status != 401
            for entry in self.log()
        )


@asynccontextmanager
async def docker_registry(
    folder: Path,
    *,
    htpasswd: Mapping[str, str] | None = None,
    tokens: TokenServer | None = None,
    port: int | None = None,
) -> AsyncIterator[DockerRegistry]:
    """Run a registry.

    Arguments:
        folder: its own; made when missing. A second registry on it finds what the first one held.
        htpasswd: user → password: demands Basic.
        tokens: demands this (running) service's tokens.
        port: a fixed port, to come back where another one was.
    """
    port = port or free_port()
    lines = [await _htpasswd(*pair) for pair in (htpasswd or {}).items()]
    path = _write_config(folder, port, lines, tokens)
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            BINARY, "serve", str(path), stdout=log, stderr=log
        )
    try:
        await _wait_until_it_answers(process, port, folder)
        yield DockerRegistry(port, folder, process.pid)
    finally:
        await end(process, _STOP_SECONDS)


def _write_config(
    folder: Path, port: int, htpasswd: Sequence[str], tokens: TokenServer | None
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {
        "version": 0.1,
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "storage")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": "not a secret"},
    }
    if htpasswd:
        users = folder / "htpasswd"
        users.write_text("".join(htpasswd))
        config["auth"] = {"htpasswd": {"realm": "Test, Realm", "path": str(users)}}
    if tokens is not None:
        config["auth"] = {
            "token": {
                "realm": tokens.realm,
                "service": tokens.service,
                "issuer": tokens.issuer,
                "rootcertbundle": str(tokens.write_bundle(folder / "token.pem")),
            }
        }
    path = folder / "config.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def _htpasswd(user: str, password: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("htpasswd", "-niB", "-C", "4", user),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate(password.encode())
    return out.decode().strip() + "\n"


async def _wait_until_it_answers(
    process: asyncio.subprocess.Process, port: int, folder: Path
) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while process.returncode is None:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return
    except TimeoutError:
        pass
    raise RuntimeError("docker-registry did not start:\n" + (folder / "log").read_text()[-2000:])
