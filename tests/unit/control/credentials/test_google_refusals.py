"""Each refusal of Google's token endpoint has its sentence."""

import json
from email.utils import formatdate

import pytest

from facade.control.credentials.clouds.google_refusals import google_refusal
from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.cloud import CloudAnswer
from tests.support.clock import EPOCH

TIMEFRAME = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)


def _refusal(
    error: str, description: str = "", *, status: int = 400, date: float | None = EPOCH
) -> Upstream:
    body = json.dumps({"error": error, "error_description": description}).encode()
    headers = {} if date is None else {"date": formatdate(date, usegmt=True)}
    return google_refusal(
        "gcr.io", CloudAnswer(status, headers, body), sent=Secret("assertion=canary"), now=EPOCH
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_refusal("invalid_grant", "Invalid JWT Signature."), "facade registry rotate"),
        (_refusal("invalid_grant", "Invalid grant: account not found"), "does not exist"),
        (_refusal("invalid_grant", "Account has been deleted"), "does not exist"),
        (_refusal("disabled_client", "The OAuth client was disabled."), "is disabled"),
        (_refusal("invalid_scope", "Bad scope"), "read-only access"),
        (_refusal("access_denied", "Account restricted"), "policy of its organisation"),
        (_refusal("invalid_grant", TIMEFRAME, date=EPOCH + 600), "600 s behind Google's"),
        (_refusal("invalid_grant", TIMEFRAME, date=EPOCH - 600), "600 s ahead of Google's"),
        (_refusal("invalid_grant", TIMEFRAME), "does not accept the time of the request"),
        (_refusal("invalid_grant", TIMEFRAME, date=None), "does not accept the time"),
        (_refusal("invalid_request", "Something new"), "invalid_request: Something new"),
        (_refusal("internal_failure", status=500), "Try again later"),
    ],
)
def test_sentences(error: Upstream, words: str) -> None:
    with pytest.raises(Upstream, match=words):
        raise error
    assert error.reason is Reason.UPSTREAM_REFUSED
    assert "gcr.io" in error.message


def test_a_rate_limit_is_one() -> None:
    assert _refusal("rate_limit_exceeded", status=429).reason is Reason.UPSTREAM_RATE_LIMITED


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"error":{"code":400}}', b"[" * 100_000, b"\xff\xfe"]
)
def test_a_body_that_is_no_oauth_error_still_gives_a_sentence(body: bytes) -> None:
    error = google_refusal("gcr.io", CloudAnswer(400, {}, body), sent=Secret("x"), now=EPOCH)
    assert "400" in error.message


def test_what_was_sent_is_struck_out_of_what_google_says() -> None:
    assert "canary" not in _refusal("odd", "you sent assertion=canary to us").message
