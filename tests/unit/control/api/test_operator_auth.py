"""Who gets in at the operator port, and who does not."""

import pytest
from aiohttp.test_utils import make_mocked_request

from facade.control.api.auth import (
    FAILURE_WINDOW_SECONDS,
    FAILURES_ALLOWED,
    Authentication,
    FailedKeys,
    allowed_hosts,
)
from facade.control.api.endpoint import API_PREFIX
from facade.control.api.errors import TooManyFailures, Unauthorized
from facade.control.api.permissions import Principal
from facade.control.api.routes import ENDPOINTS
from facade.secret import Secret
from tests.support.clock import FakeClock
from tests.support.operator_services import Client, Fakes
from tests.support.operator_system import ALL


def _example(path: str) -> str:
    for name, value in (
        ("host", "ghcr.io"),
        ("fleet", "dev"),
        ("name", "app"),
        ("version", "v1"),
        ("id", "x"),
    ):
        path = path.replace(f"{{{name}}}", value)
    return API_PREFIX + path


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
async def test_every_route_wants_a_key_and_its_permission(
    port: Client, fakes: Fakes, endpoint: object
) -> None:
    method, path = endpoint.method, _example(endpoint.path)  # type: ignore[attr-defined]
    permission = endpoint.permission  # type: ignore[attr-defined]
    without = await port.request(method, path)
    assert without.status == 401
    assert without.headers["WWW-Authenticate"].startswith("Bearer")
    fakes.keys.put("poor", ALL - {permission})
    poor = await port.request(method, path, headers={"Authorization": "Bearer poor"})
    assert poor.status == 403
    assert permission in (await poor.json())["error"]
    assert not fakes.audit.rows


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic key-for-everything", "x" * 2000]
)
async def test_what_is_no_key_is_401(port: Client, fakes: Fakes, header: str) -> None:
    answer = await port.get("/api/v1/fleets", headers={"Authorization": header})
    assert answer.status == 401
    assert list(await answer.json()) == ["error"]
    assert fakes.keys.looked_up == 0


async def test_a_revoked_key_is_refused_from_the_next_request_on(
    port: Client, fakes: Fakes
) -> None:
    fakes.keys.put("soon-gone")
    headers = {"Authorization": "Bearer soon-gone"}
    assert (await port.get("/api/v1/fleets", headers=headers)).status == 200
    await fakes.keys.revoke("id-soon-gone")
    assert (await port.get("/api/v1/fleets", headers=headers)).status == 401


async def test_guessing_keys_is_stopped_for_a_while(port: Client, fakes: Fakes) -> None:
    headers = {"Authorization": "Bearer guess"}
    for _ in range(FAILURES_ALLOWED):
        assert (await port.get("/api/v1/fleets", headers=headers)).status == 401
    looked_up = fakes.keys.looked_up
    stopped = await port.get("/api/v1/fleets", headers=headers)
    assert stopped.status == 429
    assert 0 < int(stopped.headers["Retry-After"]) <= FAILURE_WINDOW_SECONDS
    assert fakes.keys.looked_up == looked_up
    fakes.clock.advance(FAILURE_WINDOW_SECONDS)
    assert (await port.get("/api/v1/fleets", headers=headers)).status == 401


async def test_who_guesses_does_not_lock_out_who_has_a_key(port: Client, fakes: Fakes) -> None:
    ours = {"Authorization": "Bearer key-for-everything"}
    assert (await port.get("/api/v1/fleets", headers=ours)).status == 200
    for _ in range(FAILURES_ALLOWED + 1):
        await port.get("/api/v1/fleets", headers={"Authorization": "Bearer guess"})
    assert (await port.get("/api/v1/fleets", headers=ours)).status == 200
    fakes.keys.put("never-used")
    unused = {"Authorization": "Bearer never-used"}
    assert (await port.get("/api/v1/fleets", headers=unused)).status == 200
    looked_up = fakes.keys.looked_up
    await fakes.keys.revoke("id-key-for-everything")
    assert (await port.get("/api/v1/fleets", headers=ours)).status == 429, "revoked is revoked"
    assert fakes.keys.looked_up == looked_up, "and not looked up"
    fakes.clock.advance(FAILURE_WINDOW_SECONDS)
    assert (await port.get("/api/v1/fleets", headers=ours)).status == 401


@pytest.mark.parametrize("header", ["Bearer " + "k" * 513, "Bearer ké"])
async def test_what_can_be_no_key_counts_as_a_failed_one(fakes: Fakes, header: str) -> None:
    """Whatever bytes it holds."""
    authentication = Authentication(_nobody, fakes.keys.known, fakes.clock)
    request = make_mocked_request("GET", "/", headers={"Authorization": header})
    for _ in range(FAILURES_ALLOWED):
        with pytest.raises(Unauthorized):
            await authentication.principal(request)
    with pytest.raises(TooManyFailures):
        await authentication.principal(request)


async def _nobody(key: Secret) -> Principal | None:
    raise AssertionError("it should not be looked up")


def test_failures_of_one_address_do_not_count_for_another() -> None:
    failed = FailedKeys(FakeClock(), allowed=1)
    failed.failed("192.0.2.1")
    failed.check("192.0.2.2")
    with pytest.raises(TooManyFailures):
        failed.check("192.0.2.1")


async def test_a_web_page_whose_name_was_rebound_to_loopback_is_refused(
    port: Client, fakes: Fakes
) -> None:
    answer = await port.get(
        "/api/v1/fleets",
        headers={"Host": "evil.example:8080", "Authorization": "Bearer key-for-everything"},
    )
    assert answer.status == 403
    assert "allowed_hosts" in (await answer.json())["error"]
    assert fakes.keys.looked_up == 0


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"]
)
async def test_loopback_names_are_ours(port: Client, host: str) -> None:
    answer = await port.get(
        "/api/v1/fleets", headers={"Host": host, "Authorization": "Bearer key-for-everything"}
    )
    assert answer.status == 200


def test_hosts_come_from_the_listening_address_and_the_settings() -> None:
    hosts = allowed_hosts("10.0.0.5", ["Facade.Example:8080", "2001:db8::1"])
    assert hosts == {"localhost", "127.0.0.1", "::1", "10.0.0.5", "facade.example", "2001:db8::1"}
    assert "0.0.0.0" not in allowed_hosts("0.0.0.0", [])
    assert "::" not in allowed_hosts("[::]", [])
