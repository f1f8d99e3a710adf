"""An operator revokes a device while the disk of the state folder is full."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.live import live
from tests.support.small_disk import small_disk

MIB = 1024**2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def test_the_device_is_out_at_once_and_stays_out_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 * MIB) as disk:
        async with live(disk.folder) as it:
            facade = it.facade
            assert (await it.get("/whoami")).status == 200
            with disk.filled(leave=0):
                ran = await facade.cli("device", "revoke", "dev/kiosk-1")
                assert ran.code == 1
                assert "dev/kiosk-1 is refused from now on" in ran.stderr
                assert "full" in ran.stderr
                async with asyncio.timeout(10):
                    while (await it.get("/whoami")).reason != "device-revoked":
                        pass
                doctor = await facade.cli("doctor", "--json")
                words = [check["message"] for check in json.loads(doctor.stdout)["checks"]]
                assert [each for each in words if "revocations not written down: 1" in each], words
            async with asyncio.timeout(60):  # it tries again by itself
                while "revocations" in (await facade.cli("doctor")).stdout:
                    pass
            await facade.kill()
            await facade.start()
            assert (await it.get("/whoami")).reason == "device-revoked"
