"""Getting a revoked key back in, by way of the operator's own clock."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.control.devices.denylist import DenyList, Issued
from facade.device import Device
from facade.errors import Denied
from facade.serving.identity.revocation import check
from tests.support.clock import EPOCH
from tests.support.control import fresh_database
from tests.support.serving import a_device

KIOSK = ("dev", "kiosk-7")
HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
async def deny_list(tmp_path: Path) -> AsyncIterator[DenyList]:
    async with fresh_database(tmp_path) as database:
        deny_list = DenyList(database)
        await deny_list.load()
        yield deny_list


def admitted(deny_list: DenyList, device: Device, at: float) -> bool:
    try:
        check(device, deny_list.revocations(), at)
    except Denied:
        return False
    return True


async def test_a_second_revocation_by_a_clock_that_was_set_back(deny_list: DenyList) -> None:
    """The stolen key was shut out at noon; a revocation "at eleven" must not open that hour."""
    stolen = a_device(now=EPOCH + DAY)  # begins at EPOCH
    for at in (EPOCH + HOUR, EPOCH - HOUR):
        await deny_list.revoke_device(KIOSK, at, "ann")
        await deny_list.restore(KIOSK, at, "ann")
        assert not admitted(deny_list, stolen, EPOCH + 2 * HOUR)
    renewed = a_device(now=EPOCH + DAY + HOUR + 1)
    assert admitted(deny_list, renewed, EPOCH + 2 * HOUR)


async def test_a_certificate_that_began_before_a_clock_was_set_back(deny_list: DenyList) -> None:
    """Issued while the clock was an hour fast, revoked when it was right again."""
    stolen = a_device(now=EPOCH + DAY)
    began, ended = stolen.not_before.timestamp(), stolen.not_after.timestamp()
    await deny_list.record(
        Issued(*KIOSK, stolen.issuer, stolen.serial, "f" * 64, began, ended, EPOCH, "ann")
    )
    await deny_list.revoke_device(KIOSK, EPOCH - HOUR, "ann")
    await deny_list.restore(KIOSK, EPOCH - HOUR, "ann")
    assert not admitted(deny_list, stolen, EPOCH + HOUR)
