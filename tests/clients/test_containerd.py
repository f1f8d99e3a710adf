"""containerd, unchanged, with the hosts.toml that `facade runtime-config` prints."""

from pathlib import Path

import pytest

from tests.support.daemons import Containerd, containerd
from tests.support.shop import LINE, REPOSITORY, Shop, shop

pytestmark = pytest.mark.clients


async def _configure(it: Shop, daemon: Containerd) -> None:
    """Install the printed files, with the certificates where they say."""
    host = str(it.registry.host)
    printed = await it.facade.must(
        *("runtime-config", "containerd", "--facade", it.facade.device, "--registry", host),
        "--json",
    )
    [hosts] = [f for f in printed.json["files"] if f["path"].endswith(f"{host}/hosts.toml")]
    daemon.configure(host, hosts["content"].replace("/etc/facade", str(it.certificates)))


def _image(it: Shop, digest: object) -> str:
    return f"{it.registry.host}/{REPOSITORY}@{digest}"


async def test_an_image_is_pulled_by_digest_and_runs(tmp_path: Path) -> None:
    async with shop(tmp_path, "token") as it, containerd() as daemon:
        await _configure(it, daemon)
        image = _image(it, it.shipped.index)
        pulled = await daemon.pull(image)
        assert pulled.code == 0, f"{pulled}\n{it.facade.log}"
        ran = await daemon.ctr("run", "--rm", "--snapshotter", "native", image, "it")
        assert ran.stdout.strip() == LINE, ran


async def test_refused_without_a_way_around(tmp_path: Path) -> None:
    async with shop(tmp_path, "htpasswd") as it, containerd() as daemon:
        await _configure(it, daemon)
        asked = len(it.registry.log())
        unsigned = await daemon.pull(_image(it, it.unshipped.index))
        assert unsigned.code != 0
        by_tag = await daemon.pull(f"{it.registry.host}/{REPOSITORY}:v1")
        assert by_tag.code != 0
        assert "403" in by_tag.stderr
        assert len(it.registry.log()) == asked
