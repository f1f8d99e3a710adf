"""podman, unchanged: pulls by digest through the facade, and really runs what it pulled."""

from pathlib import Path

import pytest

from tests.support.facade_process import Finished
from tests.support.podman import Podman, podman_with
from tests.support.shop import LINE, REPOSITORY, Shop, shop

pytestmark = pytest.mark.clients


async def _pull(podman: Podman, it: Shop, image: str) -> Finished:
    return await podman("pull", "--quiet", "--cert-dir", it.certificates, image)


@pytest.mark.parametrize("auth", ["token", "htpasswd"])
async def test_an_image_is_pulled_by_digest_and_runs(tmp_path: Path, auth: str) -> None:
    async with shop(tmp_path, auth) as it, podman_with() as podman:
        pulled = await _pull(podman, it, it.image)
        assert pulled.code == 0, f"{pulled}\n{it.facade.log}"
        ran = await podman.run(it.image)
        assert ran.code == 0, ran
        assert ran.stdout.strip() == LINE


async def test_a_mirror_line_keeps_image_names_as_they_are(tmp_path: Path) -> None:
    async with shop(tmp_path, "token") as it:
        host = str(it.registry.host)
        printed = await it.facade.must(
            *("runtime-config", "podman", "--facade", it.facade.device, "--registry", host),
            "--json",
        )
        [file] = printed.json["files"]
        assert file["path"].startswith("/etc/containers/registries.conf.d/")
        async with podman_with(file["content"]) as podman:
            image = f"{host}/{REPOSITORY}@{it.shipped.index}"
            pulled = await _pull(podman, it, image)
            assert pulled.code == 0, f"{pulled}\n{it.facade.log}"
            assert (await podman.run(image)).stdout.strip() == LINE

            refused = await _pull(podman, it, f"{host}/{REPOSITORY}@{it.unshipped.index}")
            assert refused.code != 0
            assert "not signed" in refused.stderr


async def test_refusals_reach_the_person(tmp_path: Path) -> None:
    async with shop(tmp_path, "token") as it, podman_with() as podman:
        by_tag = await _pull(podman, it, f"{it.repository}:v1")
        assert by_tag.code != 0
        assert "by digest" in by_tag.stderr
        unsigned = await _pull(podman, it, it.named(it.unshipped))
        assert unsigned.code != 0
        assert "not signed" in unsigned.stderr
