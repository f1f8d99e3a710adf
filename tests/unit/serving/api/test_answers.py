"""Answers: plans for ranges and conditions, refusals with the right words and headers."""

import json
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from facade.errors import (
    Denied,
    FacadeError,
    Integrity,
    Invalid,
    NotFound,
    Unavailable,
    Upstream,
)
from facade.oci.digest import Digest
from facade.oci.errorcodes import BY_REASON
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.api.answers import plan, refusal, whole
from facade.serving.api.exchange import Exchange

DIGEST = Digest.of(b"content")
PULL = PullRequest(Role.BLOB, RegistryHost("ghcr.io"), Repository("org/app"), DIGEST)


def an_exchange(method: str = "GET", *, pull: PullRequest | None = PULL) -> Exchange:
    exchange = Exchange(make_mocked_request(method, "/v2/"), "0123456789abcdef", 0.0)
    exchange.pull = pull
    return exchange


def refused(error: FacadeError, **options: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    answer = refusal(an_exchange(**options), error, size=7)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body)["errors"][0], dict(answer.headers)


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=80), st.integers(0, 10**12))
def test_no_header_breaks_a_plan(range_: str, if_range: str, if_none: str, size: int) -> None:
    headers = {"Range": range_, "If-Range": if_range, "If-None-Match": if_none}
    request = make_mocked_request("GET", "/", headers=headers)
    try:
        found = plan(request, DIGEST, size, "x/y")
    except Invalid as error:
        assert error.reason is Reason.RANGE_INVALID
    else:
        assert found.status in (200, 206, 304)
        assert 0 <= found.start <= found.stop <= size


def test_304_wins_over_a_range() -> None:
    headers = {"If-None-Match": f'"{DIGEST}"', "Range": "bytes=99-"}
    found = plan(make_mocked_request("GET", "/", headers=headers), DIGEST, 7, "x/y")
    assert (found.status, found.has_body) == (304, False)
    assert "Content-Length" not in found.headers


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_answered_and_never_with_500(reason: Reason) -> None:
    status, error, headers = refused(Unavailable("words", reason=reason))
    assert status != 500
    assert status == BY_REASON[reason].status or status in (404, 503)
    assert error["detail"] == {"reason": str(reason), "request_id": "0123456789abcdef"}
    assert error["message"]
    assert ("Retry-After" in headers) == (status in (429, 503))
    assert ("Allow" in headers) == (status == 405)
    assert ("Content-Range" in headers) == (status == 416)


@pytest.mark.parametrize(
    "error",
    [
        Upstream("s3.internal 10.0.0.7", reason=Reason.UPSTREAM_REFUSED, status=403),
        Upstream("s3.internal 10.0.0.7", reason=Reason.UPSTREAM_UNREACHABLE),
        Upstream("s3.internal 10.0.0.7", reason=Reason.UPSTREAM_NOT_FOUND, status=404),
        Upstream("s3.internal 10.0.0.7", reason=Reason.UPSTREAM_RATE_LIMITED, status=429),
        Upstream("s3.internal 10.0.0.7", reason=Reason.CONTROL_UNAVAILABLE),
        Integrity("s3.internal 10.0.0.7"),
        Unavailable("/var/lib/s3.internal 10.0.0.7"),
        Unavailable("/var/lib/s3.internal 10.0.0.7", reason=Reason.INTERNAL),
        Unavailable("s3.internal 10.0.0.7", reason=Reason.CLOCK_SET_BACK),
    ],
)
def test_a_device_reads_nothing_that_it_did_not_name(error: FacadeError) -> None:
    for pull in (PULL, None):
        _, answer, _ = refused(error, pull=pull)
        assert "internal 10" not in answer["message"]
        assert answer["message"].endswith(".")


@pytest.mark.parametrize(
    "error",
    [
        Denied("Told as it is.", reason=Reason.NOT_SIGNED),
        Invalid("Told as it is.", reason=Reason.NAME_INVALID),
        NotFound("Told as it is.", reason=Reason.NOT_FOUND),
        Unavailable("Told as it is.", reason=Reason.OVERLOADED, retry_after=3),
    ],
)
def test_our_own_words_are_told_as_they_are(error: FacadeError) -> None:
    assert refused(error)[1]["message"] == "Told as it is."


@pytest.mark.parametrize(("seconds", "told"), [(0.2, "1"), (7.1, "8"), (None, "5"), (0.0, "5")])
def test_retry_after_is_a_whole_number_of_seconds(seconds: float | None, told: str) -> None:
    _, _, headers = refused(Unavailable("x", reason=Reason.OVERLOADED, retry_after=seconds))
    assert headers["Retry-After"] == told


def test_what_is_missing_upstream_depends_on_the_role() -> None:
    missing = Upstream("x", reason=Reason.UPSTREAM_NOT_FOUND, status=404)
    assert refused(missing)[1]["code"] == "BLOB_UNKNOWN"
    assert refused(missing, pull=None)[1]["code"] == "MANIFEST_UNKNOWN"


def test_head_has_the_length_and_not_the_body() -> None:
    for method, body in (("GET", b"{}"), ("HEAD", None)):
        answer = whole(an_exchange(method), b"{}", {})
        assert (answer.headers["Content-Length"], answer.body) == ("2", body)
