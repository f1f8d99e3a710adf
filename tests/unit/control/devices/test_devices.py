"""Issuing, revoking and restoring devices, against what the serving side then says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from facade.control.database.engine import Database
from facade.control.devices.authority import Authority
from facade.control.devices.denylist import DenyList
from facade.control.devices.development import DeviceKey
from facade.control.devices.service import DeviceRecord, Devices, IssuedCertificate, issuers_of
from facade.device import Device
from facade.errors import Denied, Invalid, NotFound
from facade.reasons import Reason
from facade.serving.identity.certificate import DeviceCA, DeviceCertificates, SpiffeRule
from facade.serving.identity.revocation import check
from tests.support import pki
from tests.support.clock import EPOCH, FakeClock
from tests.support.control import fresh_database

CA = Authority.create("Facade device CA", EPOCH)
CERTIFICATES = DeviceCertificates([DeviceCA.from_pem(CA.pem)], SpiffeRule("fleet.example"))
CSR = DeviceKey.create().csr


class Desk:
    """An operator and what the serving side would say."""

    def __init__(self, database: Database, clock: FakeClock, *foreign: str) -> None:
        self.clock = clock
        self.deny_list = DenyList(database)
        self.devices = Devices(
            self.deny_list,
            authority=CA,
            server_ca="SERVER CA",
            trust_domain="fleet.example",
            fleets=lambda: ("dev", "prod"),
            clock=clock,
            issuers=[*foreign, CA.name],
        )

    async def issue(self, fleet: str = "dev", name: str = "kiosk-7") -> IssuedCertificate:
        return await self.devices.issue(fleet, name, CSR, actor="ann")

    def reason(self, issued: IssuedCertificate) -> Reason | None:
        try:
            check(device(issued), self.deny_list.revocations(), self.clock.time())
        except Denied as error:
            return error.reason
        return None


def device(issued: IssuedCertificate) -> Device:
    certificate = x509.load_pem_x509_certificate(issued.certificate.encode())
    return CERTIFICATES.device(certificate.public_bytes(Encoding.DER))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with fresh_database(tmp_path) as database:
        yield database


@pytest.fixture
async def desk(database: Database) -> Desk:
    desk = Desk(database, FakeClock(auto=True))
    await desk.deny_list.load()
    return desk


async def test_an_issued_certificate_is_good_at_once(desk: Desk) -> None:
    issued = await desk.issue()
    assert device(issued).serial == issued.serial
    assert issued.ca == "SERVER CA"
    assert issued.not_after == EPOCH + 30 * 86400
    assert desk.reason(issued) is None
    assert await desk.devices.list() == [
        DeviceRecord("dev", "kiosk-7", issued.serial, issued.not_after, None)
    ]


async def test_a_revoked_device_is_refused_and_listed(desk: Desk) -> None:
    issued = await desk.issue()
    other = await desk.issue(name="kiosk-8")
    desk.clock.advance(5)
    await desk.devices.revoke("dev", "kiosk-7", None, actor="ann")
    assert desk.reason(issued) is Reason.DEVICE_REVOKED
    assert desk.reason(other) is None
    assert [record.revoked_at for record in await desk.devices.list()] == [EPOCH + 5, None]


async def test_a_revoked_device_stays_out_with_a_new_certificate_until_restored(desk: Desk) -> None:
    await desk.issue()
    await desk.devices.revoke("dev", "kiosk-7", None, actor="ann")
    fresh = await desk.issue()
    desk.clock.advance(100)
    assert desk.reason(fresh) is Reason.DEVICE_REVOKED
    await desk.devices.restore("dev", "kiosk-7", actor="ann")
    assert desk.reason(fresh) is None


async def test_a_revoked_key_is_not_readmitted_by_name(desk: Desk) -> None:
    old = await desk.issue()
    await desk.devices.revoke("dev", "kiosk-7", None, actor="ann")
    await desk.devices.restore("dev", "kiosk-7", actor="ann")
    assert desk.reason(old) is Reason.DEVICE_REVOKED
    new = await desk.issue()
    assert desk.reason(new) is None
    assert desk.reason(old) is Reason.DEVICE_REVOKED
    assert (await desk.devices.list())[0].revoked_at is None


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.999])
async def test_a_certificate_issued_in_the_second_of_the_revocation_is_good_when_it_comes(
    desk: Desk, fraction: float
) -> None:
    desk.clock.advance(fraction)
    old = await desk.issue()
    await desk.devices.revoke("dev", "kiosk-7", None, actor="ann")
    await desk.devices.restore("dev", "kiosk-7", actor="ann")
    new = await desk.issue()
    assert sum(desk.clock.slept) <= 1
    assert (desk.reason(old), desk.reason(new)) == (Reason.DEVICE_REVOKED, None)


async def test_revoking_again_counts_from_then(desk: Desk) -> None:
    await desk.issue()
    for _ in range(2):
        desk.clock.advance(10)
        await desk.devices.revoke("dev", "kiosk-7", None, actor="ann")
        await desk.devices.restore("dev", "kiosk-7", actor="ann")
        issued = await desk.issue()
        assert desk.reason(issued) is None
    desk.clock.advance(10)
    await desk.devices.revoke("dev", "kiosk-7", None, actor="ann")
    assert desk.reason(issued) is Reason.DEVICE_REVOKED


@pytest.mark.parametrize("spelling", ["{}", "00{}"])
async def test_one_certificate_is_revoked_by_its_serial(desk: Desk, spelling: str) -> None:
    first, second = await desk.issue(), await desk.issue()
    serial = spelling.format(first.serial.upper())
    for _ in range(2):  # twice is no error
        await desk.devices.revoke("dev", "kiosk-7", serial, actor="ann")
    assert desk.reason(first) is Reason.DEVICE_REVOKED
    assert desk.reason(second) is None
    assert (await desk.devices.list())[0].revoked_serials == (first.serial,)


async def test_a_slip_of_the_pen_is_no_revocation(desk: Desk) -> None:
    issued = await desk.issue()
    with pytest.raises(NotFound):
        await desk.devices.revoke("dev", "kisok-7", None, actor="ann")
    with pytest.raises(NotFound):
        await desk.devices.revoke("dev", "kiosk-7", "abc", actor="ann")
    with pytest.raises(NotFound):
        await desk.devices.revoke("dev", "kiosk-8", issued.serial, actor="ann")
    with pytest.raises(Invalid, match="hexadecimal"):
        await desk.devices.revoke("dev", "kiosk-7", "xyz", actor="ann")
    with pytest.raises(NotFound, match="not revoked"):
        await desk.devices.restore("dev", "kiosk-7", actor="ann")


async def test_devices_of_another_pki_can_be_revoked_unseen(database: Database) -> None:
    desk = Desk(database, FakeClock(), "CN=Their CA")
    await desk.deny_list.load()
    await desk.devices.revoke("prod", "scanner", None, actor="ann")
    await desk.devices.revoke("prod", "other", "AB:CD", actor="ann")
    assert ("prod", "scanner") in desk.deny_list.revocations().devices
    assert desk.deny_list.revocations().certificates == {("CN=Their CA", "abcd")}
    assert [record.serial for record in await desk.devices.list()] == [None]


@pytest.mark.parametrize(
    ("fleet", "name", "error"),
    [("nowhere", "k", NotFound), ("root", "k", Invalid), ("dev", "Kiosk", Invalid)],
)
async def test_names_that_cannot_be_issued(
    desk: Desk, fleet: str, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await desk.issue(fleet, name)
    assert await desk.devices.list() == []


async def test_a_bad_request_leaves_no_trace(desk: Desk) -> None:
    with pytest.raises(Invalid):
        await desk.devices.issue("dev", "k", "junk", actor="ann")
    assert await desk.devices.list() == []


async def test_without_a_development_ca_nothing_is_issued(database: Database) -> None:
    devices = Devices(
        DenyList(database),
        authority=None,
        server_ca="",
        trust_domain="d.example",
        fleets=lambda: ("dev",),
        clock=FakeClock(),
    )
    with pytest.raises(NotFound, match="your own PKI"):
        await devices.issue("dev", "k", CSR, actor="ann")


async def test_it_all_survives_a_restart(desk: Desk, database: Database) -> None:
    first, second = await desk.issue(), await desk.issue()
    await desk.devices.revoke("dev", "kiosk-7", first.serial, actor="ann")
    await desk.issue(name="kiosk-8")
    await desk.devices.revoke("dev", "kiosk-8", None, actor="ann")
    await desk.issue(name="kiosk-9")
    await desk.devices.revoke("dev", "kiosk-9", None, actor="ann")
    await desk.devices.restore("dev", "kiosk-9", actor="ann")
    again = Desk(database, desk.clock)
    await again.deny_list.load()
    assert again.deny_list.revocations() == desk.deny_list.revocations()
    assert await again.devices.list() == await desk.devices.list()
    assert again.reason(second) is None


async def test_every_change_is_a_new_generation(desk: Desk) -> None:
    before = desk.deny_list.generation
    await asyncio.gather(*(desk.issue(name=f"kiosk-{number}") for number in range(5)))
    assert desk.deny_list.generation == before + 5
    assert len(await desk.devices.list()) == 5


def test_the_issuers_of_a_bundle_are_read() -> None:
    ca = pki.Authority.root("A")
    assert issuers_of(ca.pem + ca.intermediate("B").pem) == ["CN=A", "CN=B"]
    with pytest.raises(Invalid, match="PEM"):
        issuers_of(b"junk")
