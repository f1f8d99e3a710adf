"""Logs: nothing secret, one line per event, request ids, third parties included."""

import asyncio
import io
import itertools
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from facade.observability.logs import (
    begin_request,
    configure,
    new_request_id,
    request_context,
    request_ids,
)
from facade.observability.redaction import MAX_TEXT_CHARS, REDACTED, redact, scrub
from facade.secret import Secret


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def json_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_line_holds_event_level_and_time() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger().info("pull_served", host="ghcr.io", bytes=7)
    (line,) = json_lines(stream)
    assert (line["event"], line["level"]) == ("pull_served", "info")
    assert (line["host"], line["bytes"]) == ("ghcr.io", 7)
    assert line["timestamp"].endswith("Z")


def test_a_key_not_on_the_list_is_blanked() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger().info("x", password="hunter2", headers={"Authorization": "zzz"})
    assert "hunter2" not in stream.getvalue()
    assert "zzz" not in stream.getvalue()
    assert json_lines(stream)[0]["password"] == REDACTED


def test_the_level_is_a_floor() -> None:
    stream = io.StringIO()
    configure("warning", "json", stream)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")
    assert [line["event"] for line in json_lines(stream)] == ["loud"]


def test_request_ids_follow_the_task_and_end_with_it() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    log = structlog.get_logger()
    with request_context("abc"):
        log.info("inside")
    log.info("outside")
    inside, outside = json_lines(stream)
    assert inside["request_id"] == "abc"
    assert "request_id" not in outside


def test_request_ids_differ() -> None:
    assert len({new_request_id() for _ in range(100)}) == 100


def test_library_lines_are_scrubbed_and_structured() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        raise RuntimeError("Authorization: Bearer abcdef123456")
    except RuntimeError:
        logging.getLogger("aiohttp.server").exception("boom %s", "Basic dXNlcjpwYXNz")
    (line,) = json_lines(stream)
    assert line["logger"] == "aiohttp.server"
    assert "RuntimeError" in line["exception"]
    assert "abcdef123456" not in stream.getvalue()
    assert "dXNlcjpwYXNz" not in stream.getvalue()


def test_library_chatter_is_left_out() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("aiohttp.client").info("GET https://user:pass@host")
    assert stream.getvalue() == ""


def test_tracebacks_show_no_local_variables() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    token = "very-local-" + "value"
    try:
        raise ValueError(len(token))
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "very-local-value" not in stream.getvalue()
    assert "ValueError" in json_lines(stream)[0]["exception"]


def test_a_console_line_cannot_be_forged() -> None:
    stream = io.StringIO()
    configure("info", "console", stream)
    structlog.get_logger().info("x", error="one\nFAKE \x1b[31mline")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_auto_is_json_away_from_a_terminal() -> None:
    stream = io.StringIO()
    configure("info", "auto", stream)
    structlog.get_logger().info("x")
    assert json_lines(stream)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("https://user:pass@ghcr.io/v2/", "user:pass"),
        ("GET /blob?X-Amz-Signature=deadbeef&x=1", "deadbeef"),
        ('{"access_token": "abcdef"}', "abcdef"),
        ("{'password': 'pw-12345'}", "pw-12345"),
        ("t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln x", "eyJzdWIiOiIxIn0"),
        ("-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----", "MIGH"),
        ("-----BEGIN EC PRIVATE KEY-----\nMIGH", "MIGH"),
    ],
)
def test_secret_shapes_are_blanked(text: str, secret: str) -> None:
    assert secret not in scrub(text)


def test_ordinary_text_stays() -> None:
    text = "ghcr.io answered 404 to GET /v2/org/app/manifests/v1.2: name unknown"
    assert scrub(text) == text


def test_long_texts_are_cut() -> None:
    assert len(scrub("x" * 10_000_000)) == MAX_TEXT_CHARS + 1


def test_values_of_every_kind_are_made_safe() -> None:
    line = redact(
        None,
        "info",
        {
            "detail": b"raw",
            "tags": ("a", Secret("pw")),
            "target": {"host": "h", "secret": "pw"},
            "error": None,
        },
    )
    assert line == {
        "detail": "<3 bytes>",
        "tags": ["a", "***"],
        "target": {"host": "h", "secret": REDACTED},
        "error": None,
    }


@pytest.mark.parametrize(
    "value", ["Bearer abcdefgh", "one\nFAKE line", "Basic\tdXNlcjpwYXNz", "token=" + "a" * 400]
)
def test_a_plain_key_is_no_hiding_place(value: str) -> None:
    (shown,) = redact(None, "info", {"host": value}).values()
    assert shown != value


def test_a_plain_value_stays_as_it_is() -> None:
    line = {"host": "ghcr.io", "digest": "sha256:" + "a" * 64}
    assert redact(None, "info", dict(line)) == line


def test_request_ids_for_a_port_differ_and_look_alike() -> None:
    made = list(itertools.islice(request_ids(), 1000))
    assert len(set(made)) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{16}", each) for each in made)


async def test_a_request_begun_in_a_task_stays_in_it() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    log = structlog.get_logger()

    async def handler(request_id: str) -> None:
        begin_request(request_id)
        await asyncio.sleep(0)
        log.info("inside")

    await asyncio.gather(*(asyncio.create_task(handler(each)) for each in ("one", "two")))
    log.info("outside")
    lines = json_lines(stream)
    assert [line.get("request_id") for line in lines] == ["one", "two", None]


def test_the_time_is_utc_to_the_microsecond() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    before = datetime.now(UTC)
    structlog.get_logger().info("x")
    (line,) = json_lines(stream)
    assert before <= datetime.fromisoformat(line["timestamp"]) <= datetime.now(UTC)


def test_what_json_does_not_know_is_shown_as_text() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger().info("x", path=Path("/etc"), tags={"a"})
    (line,) = json_lines(stream)
    assert (line["path"], line["tags"]) == ("/etc", ["a"])


@pytest.mark.parametrize("value", ["hunter2_token", 1234567, True, None])
def test_a_plain_value_under_an_unlisted_key_is_blanked_all_the_same(value: object) -> None:
    assert redact(None, "info", {"password": value}) == {"password": REDACTED}
