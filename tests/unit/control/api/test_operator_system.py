"""Devices, trust, cache, records and the OpenAPI document over HTTP."""

import re

from facade.control.api.openapi import document
from facade.control.api.routes import ENDPOINTS
from facade.reasons import Reason
from facade.wings import Pulled
from tests.support.operator_services import Client, Fakes
from tests.support.operator_system import FakeTrust, Role


async def test_a_device_certificate_is_issued_for_the_name_asked_not_the_one_in_the_csr(
    api: Client, fakes: Fakes
) -> None:
    answer = await api.post("/api/v1/devices", json={"fleet": "dev", "name": "k7", "csr": "PEM"})
    assert answer.status == 201
    body = await answer.json()
    assert body["certificate"].startswith("-----BEGIN")
    assert body["ca"].startswith("-----BEGIN")
    assert fakes.devices.requests == [("dev", "k7", "PEM")]
    assert fakes.audit.rows[-1].subject == "dev/k7"


async def test_revoking_and_restoring_a_device(api: Client, fakes: Fakes) -> None:
    revoked = await api.post("/api/v1/devices/dev/k7/revoke", json={})
    assert await revoked.json() == {"fleet": "dev", "name": "k7", "revoked": True}
    listed = (await (await api.get("/api/v1/devices")).json())["items"]
    assert [item["revoked"] for item in listed] == [True]
    await api.post("/api/v1/devices/dev/k7/restore")
    listed = (await (await api.get("/api/v1/devices")).json())["items"]
    assert [item["revoked"] for item in listed] == [False]
    assert fakes.cache.refreshed == 2


async def test_a_serial_is_taken_in_any_spelling(api: Client, fakes: Fakes) -> None:
    answer = await api.post("/api/v1/devices/dev/k7/revoke", json={"serial": "0A:bC"})
    assert (await answer.json())["serial"] == "abc"
    assert fakes.devices.rows["dev", "k7"].revoked_serials == ("abc",)
    bad = await api.post("/api/v1/devices/dev/k7/revoke", json={"serial": "zz"})
    assert bad.status == 400


async def test_trust_says_what_has_expired(api: Client, fakes: Fakes) -> None:
    now = fakes.clock.time()
    fakes.trust = FakeTrust([Role("root", now + 60, offline=True), Role("timestamp", now - 1)])
    body = await (await api.get("/api/v1/trust")).json()
    assert body["ok"] is False
    assert body["roles"][0]["expires_in"] == 60
    assert body["warnings"] == ["The role timestamp has expired."]


async def test_the_cache(api: Client) -> None:
    assert (await (await api.get("/api/v1/cache")).json())["objects"] == 2
    assert (await (await api.post("/api/v1/cache/verify")).json())["checked"] == 2
    assert (await (await api.post("/api/v1/cache/prune")).json())["bytes"] == 5


async def test_pulls_are_listed_newest_first(api: Client, fakes: Fakes) -> None:
    for at, device in ((1.0, "dev/a"), (2.0, "dev/b"), (3.0, "kiosks/c")):
        fakes.pulls.rows.append(
            Pulled(at, device, "ghcr.io", "org/app", "sha256:1", "blob", "refused", Reason.BY_TAG)
        )
    body = await (await api.get("/api/v1/pulls?fleet=dev")).json()
    assert [item["device"] for item in body["items"]] == ["dev/b", "dev/a"]
    assert body["items"][0]["reason"] == "by-tag"


async def test_the_audit_trail_can_be_filtered(api: Client) -> None:
    await api.post("/api/v1/fleets", json={"name": "a"})
    await api.post("/api/v1/connections", json={"host": "ghcr.io", "provider": "anonymous"})
    body = await (await api.get("/api/v1/audit?action=fleet.add")).json()
    assert [item["action"] for item in body["items"]] == ["fleet.add"]
    assert body["items"][0]["actor"] == "key-for-everything"


async def test_the_document_describes_every_route_and_only_those(api: Client) -> None:
    body = await (await api.get("/api/v1/openapi.json")).json()
    described = {
        (method.upper(), path) for path, methods in body["paths"].items() for method in methods
    }
    served = {
        (route.method, route.resource.canonical)
        for route in api.app.router.routes()
        if route.resource is not None
    }
    assert described == served


def test_every_reference_in_the_document_is_resolved_and_no_answer_has_a_secret() -> None:
    body = document(ENDPOINTS)
    names = set(re.findall(r"#/components/schemas/(\w+)", str(body)))
    schemas = body["components"]["schemas"]
    assert names <= set(schemas)
    for endpoint in ENDPOINTS:
        fields = set(endpoint.answer.model_fields)
        assert not fields & {"secret", "password", "config", "token"}
        assert "key" not in fields or endpoint.action == "key.create"
    ids = [op["operationId"] for path in body["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))


async def test_the_sealing_key_is_rotated_by_who_may(api: Client, fakes: Fakes) -> None:
    answer = await api.post("/api/v1/sealing/rotate")
    assert await answer.json() == {"key_id": "key1", "resealed": 2, "retired": ["0ld"]}
    assert (fakes.audit.rows[-1].action, fakes.audit.rows[-1].outcome) == ("sealing.rotate", "ok")
    fakes.keys.put("small", permissions=frozenset({"connections.write"}))
    refused = await api.post("/api/v1/sealing/rotate", headers={"Authorization": "Bearer small"})
    assert refused.status == 403
    assert "keys.write" in await refused.text()
    fakes.keys.put("one-fleet", fleets=frozenset({"dev"}))
    refused = await api.post(
        "/api/v1/sealing/rotate", headers={"Authorization": "Bearer one-fleet"}
    )
    assert refused.status == 403
    assert fakes.sealing.rotations == 1
