"""One shape for whatever goes wrong, without internals or secrets in it."""

import io
import json

import pytest

from facade.control.api.errors import MAX_BODY_BYTES, status_of
from facade.errors import (
    Conflict,
    Denied,
    FacadeError,
    Integrity,
    Invalid,
    NotFound,
    Unavailable,
    Upstream,
)
from facade.reasons import Reason
from tests.support.operator_services import Client, Fakes


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Invalid("x"), 400),
        (Denied("x"), 403),
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (Upstream("x", reason=Reason.UPSTREAM_REFUSED, status=401), 422),
        (Upstream("x", reason=Reason.UPSTREAM_NOT_FOUND, status=404), 422),
        (Upstream("x", reason=Reason.UPSTREAM_UNREACHABLE), 502),
        (Integrity("x"), 502),
        (Unavailable("x"), 503),
        (Upstream("x", reason=Reason.DEADLINE), 504),
        (FacadeError("x"), 500),
    ],
)
def test_the_status_of_each_kind_of_error(error: FacadeError, status: int) -> None:
    assert status_of(error) == status


async def test_a_failure_inside_shows_no_internals(api: Client, fakes: Fakes) -> None:
    fakes.importer.failure = RuntimeError("the password is hunter2")
    answer = await api.post(
        "/api/v1/imports",
        json={"host": "ghcr.io", "repository": "org/app", "tags": ["v1"], "fleet": "dev"},
    )
    assert answer.status == 500
    text = await answer.text()
    assert "hunter2" not in text
    assert list(json.loads(text)) == ["error"]
    assert fakes.audit.rows[-1].outcome == "failed"
    assert "hunter2" not in str(fakes.audit.rows)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/api/v1/connections", 405),
        ("POST", "/api/v1/trust", 405),
    ],
)
async def test_what_is_no_route_has_the_same_shape(
    api: Client, method: str, path: str, status: int
) -> None:
    answer = await api.request(method, path)
    assert answer.status == status
    assert list(await answer.json()) == ["error"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "object"),
        (b'{"host":"ghcr.io"}', "provider: is required"),
        (b'{"host":"ghcr.io","provider":"anonymous","colour":"red"}', "colour: no such field"),
        (b'{"host":"","provider":"anonymous"}', "host"),
        (b'{"host":"ghcr.io","provider":"magic"}', "provider"),
        (b'{"host":"ghcr.io","provider":"static","secret":["hunter2"]}', "secret"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
    ],
)
async def test_a_malformed_body_is_400_and_not_repeated(
    api: Client, body: bytes, says: str
) -> None:
    answer = await api.post("/api/v1/connections", data=body)
    assert answer.status == 400
    error = (await answer.json())["error"]
    assert says in error
    assert "hunter2" not in error


async def test_a_body_over_the_limit_is_413(api: Client) -> None:
    answer = await api.post("/api/v1/connections", data=io.BytesIO(b" " * (MAX_BODY_BYTES + 1)))
    assert answer.status == 413
    assert list(await answer.json()) == ["error"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "offset=-1", "limit=x", "colour=red", "limit=1&limit=2"]
)
async def test_a_malformed_query_is_400(api: Client, query: str) -> None:
    answer = await api.get(f"/api/v1/connections?{query}")
    assert answer.status == 400


async def test_no_answer_is_kept_by_a_browser(api: Client) -> None:
    answer = await api.get("/api/v1/fleets")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_every_answer_names_its_request(api: Client) -> None:
    ids = {(await api.get(path)).headers["X-Request-Id"] for path in ("/api/v1/fleets", "/nowhere")}
    assert len(ids - {""}) == 2
