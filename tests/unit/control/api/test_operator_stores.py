"""The operator port over the real stores: keys, audit, pulls and devices in one SQLite file."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from facade.control.api.app import operator_app
from facade.control.api.permissions import Permission
from facade.control.apikeys import ApiKeys
from facade.control.audit import AuditTrail
from facade.control.database.engine import Database
from facade.control.database.migrate import migrate
from facade.control.devices.authority import Authority
from facade.control.devices.denylist import DenyList
from facade.control.devices.development import DeviceKey
from facade.control.devices.service import Devices
from facade.control.pulls import PullRecords
from facade.wings import Pulled
from tests.support.operator_services import Client, Fakes


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'facade.db'}"
    await migrate(url)
    database = Database(url)
    yield database
    await database.close()


@pytest.fixture
async def stored(database: Database, fakes: Fakes) -> AsyncIterator[Client]:
    """The port with a key for everything out of the real store."""
    keys = ApiKeys(database, fakes.clock)
    _, key = await keys.create("ann", frozenset(Permission), None, actor="a test")
    deny_list = DenyList(database)
    await deny_list.load()
    devices = Devices(
        deny_list,
        authority=Authority.create("Device CA", fakes.clock.time()),
        server_ca="SERVER CA",
        trust_domain="facade.local",
        fleets=lambda: ["dev"],
        clock=fakes.clock,
    )
    pulls = PullRecords(database)
    await pulls.add([Pulled(1.0, "dev/k7", "ghcr.io", "org/app", "sha256:1", "blob", "served")], [])
    services = replace(
        fakes.services(),
        keys=keys,
        audit=AuditTrail(database, fakes.clock),
        devices=devices,
        pulls=pulls,
    )
    headers = {"Authorization": f"Bearer {key.reveal()}"}
    async with TestClient(TestServer(operator_app(services)), headers=headers) as client:
        yield client


async def test_keys_are_made_limited_and_revoked(stored: Client) -> None:
    made = await stored.post(
        "/api/v1/keys", json={"name": "ci", "permissions": ["devices.read"], "fleets": ["dev"]}
    )
    body = await made.json()
    headers = {"Authorization": f"Bearer {body['key']}"}
    assert (await stored.get("/api/v1/devices", headers=headers)).status == 200
    assert (await stored.get("/api/v1/devices?fleet=x", headers=headers)).status == 403
    assert (await stored.get("/api/v1/cache", headers=headers)).status == 403
    listed = (await (await stored.get("/api/v1/keys")).json())["items"]
    assert {item["name"]: item.get("fleets") for item in listed} == {"ann": None, "ci": ["dev"]}
    assert (await stored.delete(f"/api/v1/keys/{body['id']}")).status == 200
    assert (await stored.get("/api/v1/devices", headers=headers)).status == 401


async def test_a_device_goes_through_its_whole_life(stored: Client, fakes: Fakes) -> None:
    csr = DeviceKey.create().csr
    issued = await stored.post("/api/v1/devices", json={"fleet": "dev", "name": "k7", "csr": csr})
    assert issued.status == 201
    serial = (await issued.json())["serial"]
    assert (await stored.post("/api/v1/devices/dev/k7/revoke", json={})).status == 200
    (item,) = (await (await stored.get("/api/v1/devices")).json())["items"]
    assert (item["serial"], item["revoked"]) == (serial, True)
    assert (await stored.post("/api/v1/devices/dev/k7/restore")).status == 200
    one = {"serial": serial}
    assert (await stored.post("/api/v1/devices/dev/k7/revoke", json=one)).status == 200
    (item,) = (await (await stored.get("/api/v1/devices")).json())["items"]
    assert (item["revoked"], item["revoked_serials"]) == (False, [serial])
    unknown = await stored.post("/api/v1/devices/dev/other/revoke", json={})
    assert unknown.status == 404
    for bad, status in (("dev", 400), ("kiosks", 404)):
        body = {"fleet": bad, "name": "k7", "csr": "no csr"}
        assert (await stored.post("/api/v1/devices", json=body)).status == status


async def test_the_trail_keeps_successes_and_failures(stored: Client) -> None:
    await stored.post("/api/v1/fleets", json={"name": "kiosks"})
    await stored.post("/api/v1/devices/dev/other/revoke", json={})
    rows = (await (await stored.get("/api/v1/audit?limit=2")).json())["items"]
    assert [(row["actor"], row["action"], row["outcome"]) for row in rows] == [
        ("ann", "device.revoke", "failed"),
        ("ann", "fleet.add", "ok"),
    ]
    assert "No certificate" in rows[0]["detail"]["error"]


async def test_pulls_are_read_back(stored: Client) -> None:
    (row,) = (await (await stored.get("/api/v1/pulls?fleet=dev")).json())["items"]
    older = await (await stored.get(f"/api/v1/pulls?before={row.pop('id')}")).json()
    assert (older["items"], older["total"]) == ([], 1)
    assert (row["device"], row["outcome"], row["at"]) == (
        "dev/k7",
        "served",
        "1970-01-01T00:00:01Z",
    )
