"""The table from reasons to answers, against interface.md's table of cases."""

import json

import pytest

from facade import errors
from facade.oci.errorcodes import BY_REASON, Answer, answer_for, body
from facade.oci.request import Role
from facade.reasons import Reason

STATUS = {
    "not-signed": 403,
    "by-tag": 403,
    "device-revoked": 403,
    "identity": 403,
    "host-not-connected": 403,
    "listing": 403,
    "digest-invalid": 400,
    "name-invalid": 400,
    "range-invalid": 416,
    "unsupported": 405,
    "not-found": 404,
    "upstream-not-found": 404,
    "upstream-rate-limited": 429,
    "overloaded": 503,
    "device-rate-limited": 429,
    "upstream-refused": 502,
    "integrity": 502,
    "upstream-unreachable": 504,
    "deadline": 504,
    "metadata-expired": 503,
    "metadata-unavailable": 503,
    "clock-set-back": 503,
    "closure-incomplete": 503,
    "control-unavailable": 503,
    "deny-list-too-old": 503,
    "internal": 500,
}


def test_every_reason_has_its_status() -> None:
    assert {reason.value: answer.status for reason, answer in BY_REASON.items()} == STATUS
    assert set(BY_REASON) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_the_reason_decides_whatever_the_class(reason: Reason) -> None:
    assert answer_for(errors.Denied("no", reason=reason)) == BY_REASON[reason]


@pytest.mark.parametrize(
    ("role", "code"),
    [
        (Role.MANIFEST, "MANIFEST_UNKNOWN"),
        (Role.BLOB, "BLOB_UNKNOWN"),
        (Role.REFERRERS, "MANIFEST_UNKNOWN"),
        (None, "MANIFEST_UNKNOWN"),
    ],
)
def test_missing_upstream_names_what_is_missing(role: Role | None, code: str) -> None:
    error = errors.Upstream("gone", reason=Reason.UPSTREAM_NOT_FOUND, status=404)
    assert answer_for(error, role) == Answer(404, code)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.Conflict("x"), 409),
        (errors.Invalid("x"), 400),
        (errors.Denied("x"), 403),
        (errors.NotFound("x"), 404),
        (errors.Unavailable("x"), 503),
        (errors.Integrity("x"), 502),
        (errors.FacadeError("x"), 500),
    ],
)
def test_without_a_reason_the_class_decides(error: errors.FacadeError, status: int) -> None:
    assert answer_for(error).status == status


def test_the_body_is_the_oci_one() -> None:
    assert json.loads(body("DENIED", 'not "signed" ü', Reason.NOT_SIGNED, "r1")) == {
        "errors": [
            {
                "code": "DENIED",
                "message": 'not "signed" ü',
                "detail": {"reason": "not-signed", "request_id": "r1"},
            }
        ]
    }


def test_a_body_without_reason_says_internal() -> None:
    detail = json.loads(body("UNKNOWN", "oops", None, "r1"))["errors"][0]["detail"]
    assert detail["reason"] == "internal"
