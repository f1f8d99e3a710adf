"""Ceremonies while `facade up` runs, and with its offline keys carried away."""

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import small_image
from tests.support.registry import Registry
from tests.support.shop import REPOSITORY
from tests.support.signing import StockClient

QUICK = {"FACADE_TRUST__REFRESH_SECONDS": "0.2"}


class Usb:
    """The folder with the offline keys, and their passphrase, carried away."""

    def __init__(self, it: FacadeProcess, folder: Path) -> None:
        folder.mkdir()
        self._keys = Path(shutil.move(it.state / "offline", folder / "keys"))
        self._passphrase = Path(shutil.move(it.state / "offline-passphrase", folder / "pass"))

    @property
    def options(self) -> tuple[str | Path, ...]:
        return ("--offline-keys", self._keys, "--passphrase-file", self._passphrase)


async def taken_up(it: FacadeProcess, **versions: int) -> None:
    """Wait until the serving side uses these versions."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for event in it.events:
            named = str(event.get("versions")).split()
            if all(f"{role}:{number}" in named for role, number in versions.items()):
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{versions} not taken up:\n{it.log[-4000:]}")


async def trust_status(it: FacadeProcess) -> dict[str, Any]:
    found: dict[str, Any] = (await it.must("trust", "status", "--json")).json
    return found


async def test_every_key_is_rotated_under_a_running_facade(tmp_path: Path) -> None:
    image = small_image("shipped")
    async with Registry() as registry, facade_up(tmp_path / "state", env=QUICK) as it:
        registry.add_image(REPOSITORY, image, "v1")
        registry.add_image(REPOSITORY, small_image("second"), "v2")
        host = str(registry.host)
        await it.must("registry", "add", host, "--anonymous", "--insecure")
        await it.must("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev")
        await it.must("device", "issue", "dev/kiosk", "--out", tmp_path / "kiosk")
        usb = Usb(it, tmp_path / "usb")
        metadata = it.state / "trust" / "repository" / "metadata"
        client = StockClient(metadata, (it.state / "root.json").read_bytes(), tmp_path / "device")
        client.updater()
        for role in ("root", "targets", "snapshot", "timestamp", "dev"):
            done = (await it.must("trust", "rotate", role, *usb.options, "--json")).json
            assert done["published"] is True, role
        await it.must("trust", "renew", *usb.options)
        await taken_up(it, root=6, targets=4)
        await it.must("artifact", "import", f"{host}/{REPOSITORY}:v2", "--fleet", "dev")
        updater = client.updater()
        assert updater.get_targetinfo("dev/kiosk/v1") is not None
        assert updater.get_targetinfo("dev/kiosk/v2") is not None
        pulled = await it.must(
            *("pull", "dev/kiosk/v2", "--url", f"https://{it.device}"),
            *("--cert", tmp_path / "kiosk" / "client.cert"),
            *("--key", tmp_path / "kiosk" / "client.key", "--ca", tmp_path / "kiosk" / "ca.crt"),
            *("--root", it.state / "root.json", "-o", tmp_path / "layout"),
            *("--platform", "linux/amd64", "--json"),
        )
        assert pulled.code == 0
        assert "metadata_refresh_failed" not in it.log
        assert (await trust_status(it))["warnings"] == []
        # And again from its folder alone.
        await it.stop()
        await it.start()
        assert (await trust_status(it))["ok"] is True


async def test_a_change_that_waits_is_seen_and_disturbs_nobody(tmp_path: Path) -> None:
    async with facade_up(tmp_path / "state", env=QUICK) as it:
        usb = Usb(it, tmp_path / "usb")
        prepared = (await it.must("trust", "delegate", "kiosks", "--json")).json
        assert prepared["published"] is False
        assert [need["role"] for need in prepared["missing"]] == ["targets"]
        (warning,) = (await trust_status(it))["warnings"]
        assert "waits for signatures (delegate to kiosks)" in warning
        refused = await it.cli("fleet", "add", "other")
        assert refused.code == 1
        change = tmp_path / "change.json"
        await it.must("trust", "export", change)
        assert "kiosks" in (await it.must("trust", "sign", change, *usb.options)).stderr
        await it.must("trust", "import", change)
        fleets = [item["name"] for item in (await it.must("fleet", "list", "--json")).json["items"]]
        assert fleets == ["dev", "kiosks"]
        await it.must("trust", "remove", "kiosks", *usb.options)
        fleets = [item["name"] for item in (await it.must("fleet", "list", "--json")).json["items"]]
        assert fleets == ["dev"]
        assert (await trust_status(it))["warnings"] == []


async def test_a_production_setup_starts_from_a_ceremony_of_its_own(tmp_path: Path) -> None:
    """Keys in other places, the same path: `init` into the state folder, then `facade up`."""
    state, usb = tmp_path / "state", tmp_path / "usb"
    it = FacadeProcess(state, env=QUICK)
    usb.mkdir()
    (usb / "pass").write_text("a passphrase of the holders'")
    options = ("--offline-keys", usb / "keys", "--passphrase-file", usb / "pass")
    made = await it.must(
        *("trust", "init", "--fleet", "kiosks", "--root-keys", "3", "--root-threshold", "2"),
        *(*options, "--json"),
    )
    assert made.json["published"] is True
    await it.start()
    try:
        assert not (state / "offline").exists()
        roles = {role["role"]: role for role in (await trust_status(it))["roles"]}
        assert (roles["root"]["threshold"], len(roles["root"]["keys"])) == (2, 3)
        assert "kiosks" in roles
        assert "dev" not in roles
    finally:
        await it.kill()


async def test_facade_up_does_not_start_beside_a_first_ceremony_under_way(tmp_path: Path) -> None:
    it = FacadeProcess(tmp_path / "state")
    (tmp_path / "pass").write_text("x")
    key = await it.must(
        *("trust", "key", "root", "--offline-keys", tmp_path / "alice"),
        *("--passphrase-file", tmp_path / "pass", "--json"),
    )
    other = await it.must(
        *("trust", "key", "targets", "--offline-keys", tmp_path / "dan"),
        *("--passphrase-file", tmp_path / "pass", "--json"),
    )
    waiting = await it.must(
        *("trust", "init", "--root-key", key.json["public_key"]),
        *("--targets-key", other.json["public_key"], "--json"),
    )
    assert json.loads(waiting.stdout)["published"] is False
    try:
        await it.start()
    except AssertionError as error:
        assert "waits for signatures" in str(error)
    else:
        await it.kill()
        raise AssertionError("it started with keys of its own")
