"""containerd and dockerd as child processes, with everything of their own in one folder.

Guarantees: ended by their process ids when the context is left; nothing of the machine's own
configuration is read or changed. They need root.
"""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.ending import end
from tests.support.facade_process import Finished, run

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


@contextlib.asynccontextmanager
async def _short_folder(prefix: str) -> AsyncIterator[Path]:
    """Sockets have short paths (108 bytes), so not pytest's."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def _daemon(command: Sequence[str | Path], log: Path) -> AsyncIterator[None]:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=file, stderr=file)
    try:
        yield
    finally:
        await end(process, _STOP_SECONDS)


def _tail(log: Path) -> str:
    return log.read_text()[-4000:]


async def _until(command: Sequence[str | Path], log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while (await run(*command)).code != 0:
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(_tail(log))
        await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Containerd:
    """A running containerd; `hosts` is its `certs.d`."""

    folder: Path

    @property
    def hosts(self) -> Path:
        """For `ctr --hosts-dir`."""
        return self.folder / "certs.d"

    def configure(self, registry: str, hosts_toml: str) -> None:
        """Write `certs.d/<registry>/hosts.toml`."""
        path = self.hosts / registry / "hosts.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(hosts_toml)

    async def ctr(self, *arguments: str | Path) -> Finished:
        """Run `ctr ARGUMENTS`."""
        return await run("ctr", "--address", self.folder / "c.sock", *arguments)

    async def pull(self, image: str) -> Finished:
        """Pull with the hosts files."""
        return await self.ctr(
            *("images", "pull", "--hosts-dir", self.hosts, "--snapshotter", "native", image)
        )


@contextlib.asynccontextmanager
async def containerd() -> AsyncIterator[Containerd]:
    """Run containerd without its CRI plugin."""
    async with _short_folder("ctrd") as folder:
        config = folder / "config.toml"
        config.write_text(
            f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{folder}/c.sock"\n'
        )
        it = Containerd(folder)
        async with _daemon(["containerd", "-c", config], folder / "log"):
            await _until(["ctr", "--address", folder / "c.sock", "version"], folder / "log")
            yield it


@dataclass(frozen=True, slots=True)
class Docker:
    """A running dockerd."""

    folder: Path

    async def __call__(self, *arguments: str | Path) -> Finished:
        """Run `docker ARGUMENTS`."""
        return await run(
            *("docker", "-H", f"unix://{self.folder}/d.sock", *arguments),
            env={"DOCKER_CONFIG": str(self.folder / "client")},
        )


@contextlib.asynccontextmanager
async def docker(**settings: object) -> AsyncIterator[Docker]:
    """Run dockerd with these keys in its daemon.json. Its certificates are /etc/docker/certs.d's."""
    async with _short_folder("dckr") as folder:
        config = folder / "daemon.json"
        config.write_text(json.dumps(settings))
        command: list[str | Path] = [
            *("dockerd", "--config-file", config, "--data-root", folder / "data"),
            *("--exec-root", folder / "exec", "--pidfile", folder / "pid"),
            *("-H", f"unix://{folder}/d.sock", "--iptables=false", "--ip6tables=false"),
            *("--bridge=none", "--storage-driver", "vfs"),
        ]
        async with _daemon(command, folder / "log"):
            it = Docker(folder)
            probe = ["docker", "-H", f"unix://{folder}/d.sock", "version"]
            await _until(probe, folder / "log")
            yield it
