"""Connections and browsing over HTTP."""

import pytest

from facade.errors import Upstream
from facade.reasons import Reason
from tests.support.operator_catalog import DIGEST, FoundTags
from tests.support.operator_services import Client, Fakes

STATIC = {
    "host": "https://GHCR.io/org",
    "provider": "static",
    "username": "me",
    "secret": "hunter2",
}


async def test_a_secret_goes_in_and_never_comes_out(api: Client, fakes: Fakes) -> None:
    added = await api.post("/api/v1/connections", json=STATIC)
    assert added.status == 201
    assert fakes.connections.offered[0].secret is not None
    assert fakes.connections.offered[0].secret.reveal() == "hunter2"
    texts = [await added.text()]
    texts += [
        await (await api.get(f"/api/v1/connections{path}")).text() for path in ("", "/ghcr.io")
    ]
    assert not any("hunter2" in text for text in texts)


async def test_a_listing_shows_host_username_and_provider_and_nothing_else(
    api: Client,
) -> None:
    await api.post("/api/v1/connections", json=STATIC)
    body = await (await api.get("/api/v1/connections")).json()
    assert body == {
        "items": [{"host": "ghcr.io", "username": "me", "provider": "static"}],
        "total": 1,
        "limit": 50,
        "offset": 0,
    }


async def test_showing_says_who_connected_it_and_how_it_went(api: Client) -> None:
    await api.post(
        "/api/v1/connections", json={**STATIC, "settings": {"auth_hosts": ["a.example"]}}
    )
    body = await (await api.get("/api/v1/connections/ghcr.io")).json()
    assert body["created_by"] == "key-for-everything"
    assert body["created_at"] == "1970-01-01T00:16:40Z"
    assert body["settings"]["auth_hosts"] == ["a.example"]
    assert body["note"] == "Kept in no cache."


async def test_pages(api: Client) -> None:
    for name in "abc":
        body = {"host": f"{name}.example", "provider": "anonymous"}
        await api.post("/api/v1/connections", json=body)
    page = await (await api.get("/api/v1/connections?limit=2&offset=1")).json()
    assert [item["host"] for item in page["items"]] == ["b.example", "c.example"]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)


async def test_docker_hub_by_any_name_is_one_connection(api: Client) -> None:
    await api.post("/api/v1/connections", json={"host": "hub.docker.com", "provider": "anonymous"})
    answer = await api.get("/api/v1/connections/index.docker.io")
    assert (await answer.json())["host"] == "docker.io"


async def test_a_host_with_a_port_or_an_ipv6_address_fits_into_a_path(api: Client) -> None:
    for host in ("localhost:5000", "[2001:db8::1]:5000"):
        await api.post("/api/v1/connections", json={"host": host, "provider": "anonymous"})
        answer = await api.get(f"/api/v1/connections/{host}")
        assert (await answer.json())["host"] == host


async def test_credentials_in_a_url_are_refused_and_not_repeated(api: Client, fakes: Fakes) -> None:
    body = {"host": "https://me:hunter2@ghcr.io", "provider": "anonymous"}
    answer = await api.post("/api/v1/connections", json=body)
    assert answer.status == 400
    assert "hunter2" not in await answer.text()
    assert not fakes.connections.stored
    assert "hunter2" not in str(fakes.audit.rows)


async def test_new_credentials_keep_the_user_name_unless_told_otherwise(
    api: Client, fakes: Fakes
) -> None:
    await api.post("/api/v1/connections", json=STATIC)
    answer = await api.patch("/api/v1/connections/ghcr.io", json={"secret": "new"})
    assert (await answer.json())["username"] == "me"
    assert fakes.connections.offered[-1].username == ""
    assert (await api.patch("/api/v1/connections/ghcr.io", json={})).status == 400


async def test_removing(api: Client) -> None:
    await api.post("/api/v1/connections", json=STATIC)
    answer = await api.delete("/api/v1/connections/ghcr.io")
    assert await answer.json() == {"host": "ghcr.io", "removed": True}
    assert (await api.delete("/api/v1/connections/ghcr.io")).status == 404


async def test_trying_says_in_words_whether_it_works(api: Client, fakes: Fakes) -> None:
    await api.post("/api/v1/connections", json=STATIC)
    works = await api.post("/api/v1/connections/ghcr.io/test", json={})
    assert (await works.json())["ok"] is True
    fakes.connections.refusal = Upstream(
        "ghcr.io refused: wrong password", reason=Reason.UPSTREAM_REFUSED, status=401
    )
    fails = await api.post("/api/v1/connections/ghcr.io/test", json={"repository": "org/app"})
    assert fails.status == 200
    assert await fails.json() == {
        "host": "ghcr.io",
        "ok": False,
        "message": "ghcr.io refused: wrong password",
    }


async def test_tags(api: Client, fakes: Fakes) -> None:
    fakes.browse.found = FoundTags(("v2", "v1"), clipped=True, pages=7)
    answer = await api.get("/api/v1/connections/docker.io/tags?repository=alpine&all=true&match=v*")
    assert await answer.json() == {
        "repository": "library/alpine",
        "tags": [{"name": "v2"}, {"name": "v1"}],
        "clipped": True,
        "pages": 7,
        "read": 2,
        "last": "v2",
        "hidden": 0,
        "ordered_by": "best-effort",
    }
    assert fakes.browse.asked == [("docker.io", "library/alpine", True, "v*")]


@pytest.mark.parametrize("reference", ["v1", str(DIGEST)])
async def test_what_a_reference_is_now(api: Client, fakes: Fakes, reference: str) -> None:
    answer = await api.get(
        "/api/v1/connections/ghcr.io/manifest",
        params={"repository": "org/app", "reference": reference},
    )
    body = await answer.json()
    assert body["digest"] == str(DIGEST)
    assert body["platforms"][0]["platform"] == "linux/arm64"
    assert fakes.browse.asked == [("ghcr.io", "org/app", reference)]


async def test_a_path_that_is_no_host_is_400(api: Client) -> None:
    assert (await api.get("/api/v1/connections/-bad-")).status == 400
