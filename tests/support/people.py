"""Who speaks to a `facade up` over HTTP: an operator with its API key, a device with its certificate.

Guarantees: the operator's session has the key of the state folder; the device's certificate was issued
through the command line, and its session trusts the CA that came with it and nothing else.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from facade.oci.digest import Digest
from tests.support.docker_registry import DockerRegistry
from tests.support.facade_process import FacadeProcess
from tests.support.registry import Registry


@asynccontextmanager
async def operator(facade: FacadeProcess) -> AsyncIterator[aiohttp.ClientSession]:
    """A session at the operator API: `api.get("/api/v1/fleets")`."""
    key = (facade.state / "api-key").read_text().strip()
    async with aiohttp.ClientSession(
        facade.operator, headers={"Authorization": f"Bearer {key}"}
    ) as session:
        yield session


@asynccontextmanager
async def device(
    facade: FacadeProcess, folder: Path, name: str = "dev/kiosk-1"
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session at the device port, as a device that was issued just now."""
    await facade.must("device", "issue", name, "--out", folder)
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.load_cert_chain(folder / "client.cert", folder / "client.key")
    async with aiohttp.ClientSession(
        f"https://{facade.device}", connector=aiohttp.TCPConnector(ssl=context)
    ) as session:
        yield session


def path_of(registry: Registry | DockerRegistry, repository: str, role: str, digest: Digest) -> str:
    """Where a device finds something: role is manifests, blobs or referrers."""
    return f"/v2/{registry.host.path_segment}/{repository}/{role}/{digest}"


async def connect(facade: FacadeProcess, registry: Registry) -> str:
    """Connect an open registry through the command line; its host."""
    host = str(registry.host)
    await facade.must("registry", "add", host, "--anonymous", "--insecure")
    return host


def memory_of(pid: int) -> int:
    """The highest resident memory that a process ever had, in bytes (proc(5), VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")
