"""A cold pull of 2 GiB costs a constant amount of memory."""

import asyncio
import json
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_MANIFEST
from facade.oci.reference import Repository
from facade.target import SignedTarget
from tests.support.facade_app import FacadeApp
from tests.support.registry_process import BigUpstream, big_blob_upstream

MIB = 1024 * 1024
ALLOWED_MIB = 24
REPOSITORY = Repository("org/app")


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


async def sign(facade: FacadeApp, upstream: BigUpstream, version: str) -> str:
    """Sign an image with that one layer; the layer's path."""
    config = b"{}"
    layer = {"mediaType": "x/layer", "digest": str(upstream.digest), "size": upstream.size}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": "x/config", "digest": str(Digest.of(config)), "size": 2},
            "layers": [layer],
        }
    ).encode()
    facade.control.connect(upstream.connection)
    digest = facade.control.keep(upstream.host, REPOSITORY, manifest)
    await facade.publish(
        SignedTarget(
            *("dev", "app", version, digest, len(manifest)),
            *(upstream.host, REPOSITORY, OCI_MANIFEST),
        )
    )
    return f"/v2/{upstream.host}/{REPOSITORY}/blobs/{upstream.digest}"


async def pull(facade: FacadeApp, url: str, folder: Path) -> int:
    """Pull with curl, so that the client's memory is not ours; bytes received."""
    files = facade.ca.device().write(folder)
    ca = facade.server_ca.write(folder)
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--fail", "--output", "/dev/null"),
        *("--cacert", str(ca), "--cert", str(files.certificate), "--key", str(files.key)),
        *("--write-out", "%{size_download}", facade.url + url),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return int(out)


async def highest_rss(stop: asyncio.Event) -> float:
    highest = 0.0
    while not stop.is_set():
        highest = max(highest, rss_mib())
        await asyncio.sleep(0.02)
    return highest


@pytest.mark.slow
async def test_two_gibibytes_cold_and_then_warm(tmp_path: Path) -> None:
    async with (
        FacadeApp(tmp_path / "facade") as facade,
        big_blob_upstream("org/app", block_bytes=MIB, count=32) as small,
        big_blob_upstream("org/app", block_bytes=MIB, count=2048) as large,
    ):
        # What the first pull allocates once (threads, buffers, imports) is not the blob's.
        url = await sign(facade, small, "small")
        assert await pull(facade, url, tmp_path) == small.size
        await facade.settled()

        url = await sign(facade, large, "large")
        for outcome in ("cold", "warm"):
            before, stop = rss_mib(), asyncio.Event()
            watching = asyncio.create_task(highest_rss(stop))
            assert await pull(facade, url, tmp_path) == large.size
            stop.set()
            grown = await watching - before
            assert grown <= ALLOWED_MIB, f"{outcome}: {grown:.1f} MiB more"
            await facade.settled()
            print(f"{outcome}: {grown:.1f} MiB more")
