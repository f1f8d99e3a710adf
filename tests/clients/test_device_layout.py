"""What the reference device client writes is an image to skopeo and podman, and runs."""

from pathlib import Path

import pytest

from tests.support.facade_process import run
from tests.support.podman import podman_with
from tests.support.shop import LINE, shop

pytestmark = pytest.mark.clients


async def test_the_layout_is_taken_by_skopeo_and_podman(tmp_path: Path) -> None:
    async with shop(tmp_path, "token") as it, podman_with() as podman:
        layout = tmp_path / "kiosk.oci"
        await it.facade.must(
            *("pull", "dev/kiosk/v1", "--url", f"https://{it.facade.device}", "-o", layout),
            *("--cert", it.certificates / "client.cert", "--key", it.certificates / "client.key"),
            *("--ca", it.certificates / "ca.crt", "--root", it.facade.state / "root.json"),
            *("--platform", "linux/amd64"),
        )
        inspected = await run("skopeo", "inspect", f"oci:{layout}:v1")
        assert inspected.code == 0, inspected
        assert '"Architecture": "amd64"' in inspected.stdout
        pulled = await podman("pull", "--quiet", f"oci:{layout}:v1")
        assert pulled.code == 0, pulled
        ran = await podman.run(pulled.stdout.strip())
        assert ran.stdout.strip() == LINE, ran
