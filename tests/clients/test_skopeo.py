"""skopeo, unchanged, against the whole product: pulls what is signed, is told why not."""

import json
from pathlib import Path

import pytest

from tests.support.shop import Shop, shop

pytestmark = pytest.mark.clients


def _blobs(layout: Path) -> set[str]:
    return {path.name for path in (layout / "blobs" / "sha256").iterdir()}


def _refused(shop: Shop, reason: str) -> bool:
    return any(event.get("reason") == reason for event in shop.facade.events)


@pytest.mark.parametrize("auth", ["token", "htpasswd"])
async def test_a_multi_arch_image_by_digest(tmp_path: Path, auth: str) -> None:
    async with shop(tmp_path, auth) as it:
        pulled = await it.skopeo(it.image, tmp_path / "layout", "--all")
        assert pulled.code == 0, f"{pulled}\n{it.facade.log}"
        expected = {digest.hex for digest in (*it.shipped.manifests, *it.shipped.blobs)}
        assert _blobs(tmp_path / "layout") == expected
        index = json.loads((tmp_path / "layout" / "index.json").read_text())
        assert index["manifests"][0]["digest"] == str(it.shipped.index)
        blobs_fetched = it.registry.count("GET", "/blobs/")

        again = await it.skopeo(it.image, tmp_path / "again", "--all")
        assert again.code == 0, f"{again}\n{it.facade.log}"
        assert _blobs(tmp_path / "again") == expected
        assert it.registry.count("GET", "/blobs/") == blobs_fetched
        assert blobs_fetched == len(it.shipped.blobs)


async def test_refusals_reach_the_person(tmp_path: Path) -> None:
    async with shop(tmp_path, "token") as it:
        by_tag = await it.skopeo(f"{it.repository}:v1", tmp_path / "tag")
        assert by_tag.code != 0
        assert "by digest" in by_tag.stderr

        unsigned = await it.skopeo(it.named(it.unshipped), tmp_path / "unsigned")
        assert unsigned.code != 0
        assert "not signed" in unsigned.stderr
        assert _refused(it, "not-signed")

        await it.facade.must("device", "revoke", "dev/kiosk-1")
        revoked = await it.skopeo(it.image, tmp_path / "revoked")
        assert revoked.code != 0
        assert "revoked" in revoked.stderr

        await it.facade.must("device", "restore", "dev/kiosk-1")
        still_out = await it.skopeo(it.image, tmp_path / "old-certificate")
        assert still_out.code != 0
        await it.facade.must("device", "issue", "dev/kiosk-1", "--out", tmp_path / "fresh")
        for name in ("client.cert", "client.key"):
            (tmp_path / "fresh" / name).replace(it.certificates / name)
        back = await it.skopeo(it.image, tmp_path / "back")
        assert back.code == 0, f"{back}\n{it.facade.log}"


async def test_kill_minus_nine_and_restart_with_everything_still_served(tmp_path: Path) -> None:
    async with shop(tmp_path, "token") as it:
        assert (await it.skopeo(it.image, tmp_path / "before", "--all")).code == 0
        fetched = it.registry.count("GET", "/blobs/")
        port = it.facade.device.rpartition(":")[2]
        await it.facade.kill()
        it.facade.use_device_port(int(port))
        await it.facade.start()
        pulled = await it.skopeo(it.image, tmp_path / "after", "--all")
        assert pulled.code == 0, f"{pulled}\n{it.facade.log}"
        assert _blobs(tmp_path / "after") == _blobs(tmp_path / "before")
        assert it.registry.count("GET", "/blobs/") == fetched


async def test_without_a_certificate_the_alert_says_so(tmp_path: Path) -> None:
    async with shop(tmp_path, "htpasswd") as it:
        (it.certificates / "client.cert").unlink()
        (it.certificates / "client.key").unlink()
        refused = await it.skopeo(it.image, tmp_path / "layout")
        assert refused.code != 0
        assert "certificate required" in refused.stderr
