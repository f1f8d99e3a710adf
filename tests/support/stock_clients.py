"""skopeo, podman, containerd and Docker, unchanged, as one device of one facade.

Guarantees: they present the certificate in a folder as it is at the moment of the pull, ask for
the image by digest, and forget what they pulled before, so that every pull is a whole one. Docker reads
/etc/docker/certs.d and /etc/hosts of the machine: both are as before when the context is left.
"""

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from facade.oci.digest import Digest
from tests.support.daemons import Containerd, Docker, containerd, docker
from tests.support.facade_process import Finished, run
from tests.support.podman import Podman, podman_with

HOSTS = """server = "https://{address}"
ca = "{folder}/ca.crt"
client = [["{folder}/client.cert", "{folder}/client.key"]]
[host]
"""


class StockClient(Protocol):
    """One of them."""

    async def pull(self, repository: str, digest: Digest) -> Finished:
        """Pull an image; its exit code and what it prints."""
        ...

    async def run(self, repository: str, digest: Digest) -> Finished | None:
        """Really run what was pulled; None: this one cannot run anything."""
        ...


@dataclass
class Skopeo:
    """`skopeo copy` into an OCI layout."""

    certificates: Path
    prefix: str
    count: int = field(default=0)

    async def pull(self, repository: str, digest: Digest) -> Finished:
        self.count += 1
        return await run(
            *("skopeo", "copy", "--src-cert-dir", self.certificates),
            f"docker://{self.prefix}/{repository}@{digest}",
            f"oci:{self.certificates.parent}/layout{self.count}:app",
        )

    async def run(self, repository: str, digest: Digest) -> Finished | None:
        return None


@dataclass
class PodmanClient:
    """`podman pull`, `podman run`."""

    certificates: Path
    prefix: str
    podman: Podman

    async def pull(self, repository: str, digest: Digest) -> Finished:
        await self.podman("rmi", "--all", "--force")
        image = f"{self.prefix}/{repository}@{digest}"
        return await self.podman("pull", "--quiet", "--cert-dir", self.certificates, image)

    async def run(self, repository: str, digest: Digest) -> Finished | None:
        return await self.podman.run(f"{self.prefix}/{repository}@{digest}")


@dataclass
class ContainerdClient:
    """`ctr images pull` with a hosts.toml; the registry keeps its own name, so `?ns=` is sent."""

    certificates: Path
    registry: str
    daemon: Containerd

    async def pull(self, repository: str, digest: Digest) -> Finished:
        image = f"{self.registry}/{repository}@{digest}"
        await self.daemon.ctr("images", "rm", "--sync", image)
        return await self.daemon.pull(image)

    async def run(self, repository: str, digest: Digest) -> Finished | None:
        image = f"{self.registry}/{repository}@{digest}"
        return await self.daemon.ctr("run", "--rm", "--snapshotter", "native", image, "it")


@dataclass
class DockerClient:
    """`docker pull`, `docker run`: by the facade's name, or through Docker Hub's mirror ("")."""

    certificates: Path
    address: str
    prefix: str
    docker: Docker

    async def pull(self, repository: str, digest: Digest) -> Finished:
        held = (await self.docker("images", "--all", "--quiet")).stdout.split()
        if held:
            await self.docker("rmi", "--force", *set(held))
        shutil.copytree(self.certificates, docker_folder(self.address), dirs_exist_ok=True)
        return await self.docker("pull", f"{self.prefix}{repository}@{digest}")

    async def run(self, repository: str, digest: Digest) -> Finished | None:
        image = f"{self.prefix}{repository}@{digest}"
        return await self.docker("run", "--rm", "--network", "none", image)


def docker_folder(address: str) -> Path:
    """Where Docker looks for the certificates of a registry, at each pull."""
    return Path("/etc/docker/certs.d") / address


@contextlib.contextmanager
def known_as(name: str) -> Iterator[None]:
    """`name` is ::1 while this lasts."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text(f"{before.rstrip()}\n::1 {name}\n")
    try:
        yield
    finally:
        hosts.write_text(before)


@contextlib.asynccontextmanager
async def stock_clients(
    address: str, registry: str, segment: str, certificates: Path
) -> AsyncIterator[dict[str, StockClient]]:
    """All of them by name: skopeo, podman, containerd, docker; and "mirror", the same Docker, but
    taking the facade for Docker Hub's mirror. Those two cannot pull at once.

    Arguments:
        address: NAME:PORT of the facade, where NAME is no address of 127.0.0.0/8 (clients.md, 11).
        registry: as image names have it; segment: as pull paths have it.
        certificates: the folder with what they present.
    """
    prefix = f"{address}/{segment}"
    mirrors = [f"https://{address}"]
    async with (
        podman_with() as podman,
        containerd() as daemon,
        docker(**{"registry-mirrors": mirrors}) as dockerd,
    ):
        daemon.configure(registry, HOSTS.format(address=address, folder=certificates))
        try:
            yield {
                "skopeo": Skopeo(certificates, prefix),
                "podman": PodmanClient(certificates, prefix, podman),
                "containerd": ContainerdClient(certificates, registry, daemon),
                "docker": DockerClient(certificates, address, f"{prefix}/", dockerd),
                "mirror": DockerClient(certificates, address, "", dockerd),
            }
        finally:
            shutil.rmtree(docker_folder(address), ignore_errors=True)
