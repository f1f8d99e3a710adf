"""A registry's words are shown without anything secret in them."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.refusals import refusal
from facade.upstream.token import BasicCredentials
from facade.upstream.words import MAX_WORDS_CHARS, redact, registry_words

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no access"}]}', "DENIED: no access"),
        (
            b'{"errors":[{"code":"A","message":"a","detail":[1]},{"code":"B","message":"b"}]}',
            "A: a; B: b",
        ),
        (b'{"details":"incorrect username or password"}', "incorrect username or password"),
        (b'{"error":"invalid_grant","error_description":"bad"}', "invalid_grant: bad"),
        (b'{"error":{"code":"X","message":"nested"}}', "X: nested"),
        (b'{"message":"just that"}', "just that"),
        (b'"a string"', "a string"),
        (b"plain\r\nwords\x00\x1b[31m", "plain words [31m"),
        (b"<html><body>502</body></html>", ""),
        (b"", ""),
        (b"[]", ""),
        (b'{"errors":["x",5,null]}', "x"),
        (b'{"errors":5}', ""),
    ],
)
def test_understood(body: bytes, words: str) -> None:
    assert registry_words(body) == words


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl",
        "Bearer abcdefgh123",
        "Authorization: Basic YW5uOnBhc3N3b3Jk",
        "password=hunter2",
        '"secret": "hunter2"',
        "access_token: hunter2",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "dckr_pat_abcdefghijklmnopqrstuvwxyz1",
        "https://s3.test/x?X-Amz-Signature=hunter2&y=z",
        "https://ann:hunter2@registry.example/",
    ],
)
def test_what_looks_secret_is_masked(secret: str) -> None:
    shown = redact(f"it failed for {secret} just now")
    assert "***" in shown
    assert "hunter2" not in shown
    assert secret not in shown
    assert shown.startswith("it failed for")


@pytest.mark.parametrize(
    "unit", ["eyJ", "-eyJa", "?a&", "??", "?a=", "eyJaaaa.", "https://", "password", "token=", "a/"]
)
def test_words_made_to_be_slow_are_not(unit: str) -> None:
    """Some of these took fifteen seconds of the event loop, for one error body."""
    body = (unit * 65_536)[:65_536].encode()
    before = time.thread_time()
    registry_words(body)
    registry_words(json.dumps({"message": body.decode()}).encode())
    assert time.thread_time() - before < 1.5


def test_digests_and_names_stay() -> None:
    text = f"manifest {DIGEST} of repository org/some-long-application-name/with-many-parts unknown"
    assert redact(text) == text


def test_what_was_sent_is_struck_out_in_every_form() -> None:
    credentials = BasicCredentials("ann", Secret("tr0ub4dor&3"))
    header = credentials.header
    pair = header.reveal().removeprefix("Basic ")
    body = f"you sent {header.reveal()} or {pair} or ann:tr0ub4dor&3 or tr0ub4dor&3".encode()
    error = refusal("registry.example", 403, body, what="GET /v2/", sent=header)
    assert "tr0ub4dor" not in error.message
    assert pair not in error.message
    assert "It says: you sent" in error.message


def test_long_words_are_cut() -> None:
    assert len(redact("word " * 1000)) == MAX_WORDS_CHARS


@given(st.binary(max_size=300))
def test_any_body_is_survived(body: bytes) -> None:
    words = registry_words(body)
    assert words == "" or words.isprintable()


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | (
    st.dictionaries(st.sampled_from(["errors", "error", "message", "code"]), inner)
)))  # fmt: skip
def test_any_document_is_survived(document: object) -> None:
    assert isinstance(registry_words(json.dumps(document).encode()), str)


@pytest.mark.parametrize(
    ("status", "sent", "reason", "says"),
    [
        (404, "Bearer x", Reason.UPSTREAM_NOT_FOUND, "does not have"),
        (429, None, Reason.UPSTREAM_RATE_LIMITED, "try again in 60 s"),
        (401, "Bearer x", Reason.UPSTREAM_REFUSED, "Check that the connection's credentials"),
        (401, None, Reason.UPSTREAM_REFUSED, "asked without credentials"),
        (403, "Bearer x", Reason.UPSTREAM_REFUSED, "refused the thing (403)"),
        (500, None, Reason.UPSTREAM_REFUSED, "Try again later"),
        (302, None, Reason.UPSTREAM_REFUSED, "is a container registry"),
    ],
)
def test_each_status_has_its_words(
    status: int, sent: str | None, reason: Reason, says: str
) -> None:
    error = refusal(
        "registry.example",
        status,
        b"",
        what="the thing",
        sent=None if sent is None else Secret(sent),
    )
    assert (error.status, error.reason) == (status, reason)
    assert error.message.startswith("registry.example")
    assert says in error.message


def test_a_rate_limit_carries_its_wait() -> None:
    error = refusal("r", 429, b"", what="x", retry_after=7.0)
    assert error.retry_after == 7.0
