"""Imports, artifacts, fleets and keys over HTTP."""

import asyncio
import json

import pytest

from facade.errors import NotFound
from tests.support.operator_catalog import DIGEST, Verified
from tests.support.operator_services import Client, Fakes
from tests.support.operator_system import ALL

ORDER = {"host": "ghcr.io", "repository": "org/app", "tags": ["v1", "v2"], "fleet": "dev"}
EVENTS = {"Accept": "text/event-stream"}


def _events(text: str) -> list[tuple[str, dict[str, object]]]:
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        events.append((fields["event"], json.loads(fields["data"])))
    return events


async def test_an_import_answers_per_tag(api: Client, fakes: Fakes) -> None:
    fakes.importer.bad = frozenset({"v2"})
    answer = await api.post("/api/v1/imports", json=ORDER)
    assert answer.status == 200
    common = {"host": "ghcr.io", "repository": "org/app"}
    assert (await answer.json())["results"] == [
        {
            **common,
            "tag": "v1",
            "status": "imported",
            "digest": str(DIGEST),
            "target": "dev/app/v1",
        },
        {**common, "tag": "v2", "status": "failed", "error": "It is not there."},
    ]
    assert fakes.cache.refreshed == 1
    assert fakes.audit.rows[-1].subject == "ghcr.io/org/app:v1,v2 for dev"
    assert fakes.audit.rows[-1].detail["results"] == {"imported": 1, "failed": 1}


async def test_progress_is_streamed_and_ends_with_the_same_result(
    api: Client, fakes: Fakes
) -> None:
    answer = await api.post("/api/v1/imports", json=ORDER, headers=EVENTS)
    assert answer.status == 200
    assert answer.content_type == "text/event-stream"
    *progress, (last, result) = _events(await answer.text())
    assert {name for name, _ in progress} == {"progress"}
    assert progress[0][1] == {"tag": "v1", "step": "resolve"}
    assert last == "result"
    plain = await (await api.post("/api/v1/imports", json=ORDER)).json()
    assert result == plain


async def test_a_failure_before_any_progress_has_its_own_status(api: Client, fakes: Fakes) -> None:
    fakes.importer.failure = NotFound("ghcr.io is not connected.")
    answer = await api.post("/api/v1/imports", json=ORDER, headers=EVENTS)
    assert answer.status == 404
    assert await answer.json() == {"error": "ghcr.io is not connected."}


@pytest.mark.parametrize(
    ("failure", "says"),
    [(NotFound("Gone."), "Gone."), (RuntimeError("hunter2"), "broke inside")],
)
async def test_a_failure_after_progress_is_an_error_event(
    api: Client, fakes: Fakes, failure: Exception, says: str
) -> None:
    fakes.importer.failure, fakes.importer.fail_late = failure, True
    answer = await api.post("/api/v1/imports", json=ORDER, headers=EVENTS)
    name, body = _events(await answer.text())[-1]
    assert name == "error"
    assert says in str(body["error"])
    assert "hunter2" not in str(body)


async def test_a_listener_that_goes_away_stops_the_import(api: Client, fakes: Fakes) -> None:
    fakes.importer.endless = True
    answer = await api.post("/api/v1/imports", json=ORDER, headers=EVENTS)
    await answer.content.readline()
    answer.close()
    async with asyncio.timeout(5):
        await fakes.importer.cancelled.wait()
    assert fakes.audit.rows[-1].outcome == "interrupted"


async def test_a_slow_listener_loses_progress_and_not_the_result(api: Client, fakes: Fakes) -> None:
    tags = [f"v{number}" for number in range(400)]
    answer = await api.post("/api/v1/imports", json={**ORDER, "tags": tags}, headers=EVENTS)
    *progress, (last, result) = _events(await answer.text())
    assert len(progress) < 2 * len(tags)
    assert last == "result"
    results = result["results"]
    assert isinstance(results, list)
    assert len(results) == 400


@pytest.mark.parametrize(
    "change",
    [
        {"tags": []},
        {"tags": ["-bad"]},
        {"tags": ["sha256:short"]},
        {"fleet": "root"},
        {"fleet": "Dev"},
        {"repository": "UPPER"},
        {"version": "v1"},  # one version for two tags
        {"platforms": ["linux"]},
        {"name": "../x"},
        {"host": "not a host"},
    ],
)
async def test_a_malformed_order_is_400_and_imports_nothing(
    api: Client, fakes: Fakes, change: dict[str, object]
) -> None:
    answer = await api.post("/api/v1/imports", json={**ORDER, **change})
    assert answer.status == 400
    assert not fakes.importer.orders


async def test_a_digest_can_be_imported(api: Client, fakes: Fakes) -> None:
    await api.post("/api/v1/imports", json={**ORDER, "tags": [str(DIGEST)], "version": "v1"})
    assert fakes.importer.orders[0].references == (DIGEST,)


async def test_listing_and_showing_artifacts(api: Client, fakes: Fakes) -> None:
    fakes.artifacts.put("dev", "app", "v1+build")
    fakes.artifacts.put("kiosks", "app", "v1")
    listed = await (await api.get("/api/v1/artifacts?fleet=dev")).json()
    assert [item["target"] for item in listed["items"]] == ["dev/app/v1+build"]
    assert listed["total"] == 1
    shown = await (await api.get("/api/v1/artifacts/dev/app/v1%2Bbuild")).json()
    assert shown["digest"] == str(DIGEST)
    assert shown["total_bytes"] == 4096
    assert shown["pulled"] == 3
    assert (await api.get("/api/v1/artifacts/dev/app/v2")).status == 404


async def test_verifying_says_what_is_wrong(api: Client, fakes: Fakes) -> None:
    fakes.artifacts.put("dev", "app", "v1")
    fakes.artifacts.verdict = Verified(problems=[("sha256:1", "gone upstream")])
    body = await (await api.post("/api/v1/artifacts/dev/app/v1/verify")).json()
    assert body["ok"] is False
    assert body["problems"] == [{"digest": "sha256:1", "problem": "gone upstream"}]


async def test_withdrawing(api: Client, fakes: Fakes) -> None:
    fakes.artifacts.put("dev", "app", "v1")
    answer = await api.delete("/api/v1/artifacts/dev/app/v1")
    assert await answer.json() == {"target": "dev/app/v1", "withdrawn": True}
    assert fakes.audit.rows[-1].action == "artifact.withdraw"
    assert fakes.audit.rows[-1].subject == "dev/app/v1"
    assert fakes.cache.refreshed == 1


async def test_warming(api: Client, fakes: Fakes) -> None:
    fakes.artifacts.put("dev", "app", "v1")
    one = await (await api.post("/api/v1/artifacts/dev/app/v1/warm")).json()
    assert one["ok"] is True
    assert one["results"] == [{"digest": str(DIGEST), "bytes": 8, "cached": True}]
    many = await api.post("/api/v1/cache/warm", json={"targets": ["dev/app/v1"]})
    assert (await many.json())["items"] == [one]


async def test_a_key_for_one_fleet_touches_no_other(port: Client, fakes: Fakes) -> None:
    fakes.keys.put("dev-only", fleets=frozenset({"dev"}))
    fakes.artifacts.put("dev", "app", "v1")
    fakes.artifacts.put("kiosks", "app", "v1")
    fakes.fleets.names.append("kiosks")
    headers = {"Authorization": "Bearer dev-only"}
    listed = await (await port.get("/api/v1/artifacts", headers=headers)).json()
    assert [item["fleet"] for item in listed["items"]] == ["dev"]
    fleets = await (await port.get("/api/v1/fleets", headers=headers)).json()
    assert [item["name"] for item in fleets["items"]] == ["dev"]
    for method, path, body in (
        ("GET", "/artifacts?fleet=kiosks", None),
        ("GET", "/artifacts/kiosks/app/v1", None),
        ("DELETE", "/artifacts/kiosks/app/v1", None),
        ("POST", "/artifacts/kiosks/app/v1/warm", None),
        ("POST", "/cache/warm", {"targets": ["dev/app/v1", "kiosks/app/v1"]}),
        ("POST", "/imports", {**ORDER, "fleet": "kiosks"}),
        ("POST", "/fleets", {"name": "more"}),
        ("GET", "/devices?fleet=kiosks", None),
        ("POST", "/devices", {"fleet": "kiosks", "name": "k1", "csr": "x"}),
        ("POST", "/devices/kiosks/k1/revoke", {}),
        ("POST", "/devices/kiosks/k1/restore", None),
        ("GET", "/pulls", None),
        ("GET", "/pulls?fleet=kiosks", None),
        ("GET", "/pulls?device=kiosks/k1", None),
        ("GET", "/audit", None),
        ("GET", "/keys", None),
    ):
        answer = await port.request(method, f"/api/v1{path}", json=body, headers=headers)
        assert answer.status == 403, path
    assert ("kiosks", "app", "v1") in fakes.artifacts.records
    assert not fakes.importer.orders


async def test_a_key_makes_no_key_that_can_do_more(port: Client, fakes: Fakes) -> None:
    poor = ALL - {"connections.write"}
    fakes.keys.put("poor", poor)
    fakes.keys.put("dev-only", fleets=frozenset({"dev"}))
    for holder, body in (
        ("poor", {"name": "x", "permissions": ["connections.write"]}),
        ("dev-only", {"name": "x", "permissions": ["cache.read"]}),  # for all fleets
        ("dev-only", {"name": "x", "permissions": ["cache.read"], "fleets": ["dev", "kiosks"]}),
    ):
        headers = {"Authorization": f"Bearer {holder}"}
        answer = await port.post("/api/v1/keys", json=body, headers=headers)
        assert answer.status == 403
    made = await port.post(
        "/api/v1/keys",
        json={"name": "ci", "permissions": ["artifacts.write"], "fleets": ["dev"]},
        headers={"Authorization": "Bearer dev-only"},
    )
    assert made.status == 201
    assert (await made.json())["key"] == "value-of-ci"


async def test_a_key_is_shown_once(api: Client, fakes: Fakes) -> None:
    made = await api.post("/api/v1/keys", json={"name": "ci", "permissions": ["cache.read"]})
    value = (await made.json())["key"]
    assert value not in await (await api.get("/api/v1/keys")).text()
    assert value not in str(fakes.audit.rows)
    gone = await api.delete("/api/v1/keys/id-ci")
    assert await gone.json() == {"id": "id-ci", "revoked": True}


@pytest.mark.parametrize("permission", ["everything", "", "connections"])
async def test_an_unknown_permission_is_refused(api: Client, permission: str) -> None:
    body = {"name": "x", "permissions": [permission]}
    assert (await api.post("/api/v1/keys", json=body)).status == 400
