"""podman with storage and configuration of its own.

Guarantees: nothing of the machine's own images or registries is read or changed; everything is removed
when the context is left. Needs root.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.facade_process import Finished, run


class Podman:
    """podman with storage of its own; podman wants a short path for it."""

    def __init__(self, folder: Path, registries: str = "") -> None:
        conf = folder / "registries.conf"
        conf.write_text(registries)
        self._env = {"CONTAINERS_REGISTRIES_CONF": str(conf), "TMPDIR": str(folder)}
        self._global: Sequence[str] = (
            *("--root", str(folder / "root"), "--runroot", str(folder / "run")),
            *("--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        )

    async def run(self, image: str) -> Finished:
        """Really run an image that is there."""
        return await self(
            *("run", "--rm", "--network", "none", "--pull", "never"),
            *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
            image,
        )

    async def __call__(self, *arguments: str | Path) -> Finished:
        return await run("podman", *self._global, *arguments, env=self._env)


@asynccontextmanager
async def podman_with(registries: str = "") -> AsyncIterator[Podman]:
    """A podman whose registries.conf holds `registries`."""
    folder = Path(tempfile.mkdtemp(prefix="pod", dir="/tmp"))
    try:
        yield Podman(folder, registries)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
