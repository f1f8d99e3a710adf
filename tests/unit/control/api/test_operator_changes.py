"""Changes: audited, and answered only when the serving side uses them."""

import pytest

from facade.control.api.endpoint import Endpoint
from facade.control.api.routes import ENDPOINTS
from tests.support.operator_services import Client, Fakes

STATIC = {"host": "ghcr.io", "provider": "static", "username": "me", "secret": "hunter2"}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_no_get_changes_anything(endpoint: Endpoint[object, object, object]) -> None:  # type: ignore[type-var]
    if endpoint.method == "GET":
        assert not endpoint.action
        assert not endpoint.refreshes


async def test_a_change_is_audited_with_who_what_and_outcome(api: Client, fakes: Fakes) -> None:
    assert (await api.post("/api/v1/connections", json=STATIC)).status == 201
    assert (await api.post("/api/v1/connections", json=STATIC)).status == 409
    added, refused = fakes.audit.rows
    assert (added.actor, added.action, added.subject, added.outcome) == (
        "key-for-everything",
        "connection.add",
        "ghcr.io",
        "ok",
    )
    assert refused.outcome == "failed"
    assert "already" in refused.detail["error"]
    assert "hunter2" not in str(fakes.audit.rows)


async def test_reading_is_not_audited(api: Client, fakes: Fakes) -> None:
    await api.get("/api/v1/connections")
    assert not fakes.audit.rows


async def test_a_change_waits_for_the_serving_side(api: Client, fakes: Fakes) -> None:
    answer = await api.post("/api/v1/fleets", json={"name": "kiosks"})
    assert "pending" not in await answer.json()
    assert fakes.cache.refreshed == 1


async def test_a_change_that_the_serving_side_has_not_taken_up_is_pending(
    api: Client, fakes: Fakes
) -> None:
    fakes.cache.applied = False
    answer = await api.post("/api/v1/fleets", json={"name": "kiosks"})
    assert answer.status == 201
    assert (await answer.json())["pending"] is True


async def test_a_refused_change_refreshes_nothing(api: Client, fakes: Fakes) -> None:
    fakes.fleets.offline = True
    answer = await api.post("/api/v1/fleets", json={"name": "kiosks"})
    assert answer.status == 409
    assert "facade trust delegate kiosks" in (await answer.json())["error"]
    assert fakes.cache.refreshed == 0


@pytest.mark.slow
async def test_a_serving_side_that_hangs_holds_a_change_for_five_seconds_only(
    api: Client, fakes: Fakes
) -> None:
    fakes.cache.stuck = True
    answer = await api.post("/api/v1/fleets", json={"name": "kiosks"})
    assert (await answer.json())["pending"] is True
