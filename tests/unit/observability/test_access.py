"""The access log: both ways of writing a line say the same, and none is lost."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from facade.observability.access import MAX_GATHERED, Access, AccessLog
from facade.observability.logs import configure
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from tests.support.serving import a_device

PULL = PullRequest(
    Role.BLOB, RegistryHost("ghcr.io", 8443), Repository("org/app"), Digest.of(b"content")
)
PLAIN = Access(
    "00ff00ff00ff00ff", "GET", "blobs", 206, "served", 17, 1.23456, a_device(), PULL, "hit"
)
SHAPES = [
    PLAIN,
    replace(PLAIN, method="HEAD", size=0, cache=""),
    replace(PLAIN, device=None, pull=None, cache="", route="version", seconds=0.00001),
    replace(PLAIN, outcome="left", status=499),
]


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def log_to(stream: io.StringIO, level: str = "info", style: str = "json") -> AccessLog:
    configure(level, style, stream)
    return AccessLog.configured()


@pytest.mark.parametrize("access", SHAPES)
async def test_both_ways_say_the_same(access: Access) -> None:
    ready_made, through_structlog = io.StringIO(), io.StringIO()
    log = log_to(ready_made)
    log.write(access)
    log.flush()
    configure("info", "json", through_structlog)
    AccessLog().write(access)
    (one,), (other,) = lines(ready_made), lines(through_structlog)
    assert one.pop("timestamp")[:16] == other.pop("timestamp")[:16]
    assert one == other
    assert list(one)[:3] == ["method", "route", "status"]


async def test_a_serving_process_says_which_it_is_either_way() -> None:
    with structlog.contextvars.bound_contextvars(worker=2):
        ready_made, through_structlog = io.StringIO(), io.StringIO()
        log = log_to(ready_made)
        log.write(PLAIN)
        log.flush()
        configure("info", "json", through_structlog)
        AccessLog().write(PLAIN)
    (one,), (other,) = lines(ready_made), lines(through_structlog)
    assert one["worker"] == other["worker"] == 2


async def test_lines_are_gathered_and_written_soon() -> None:
    stream = io.StringIO()
    log = log_to(stream)
    log.write(PLAIN)
    log.write(PLAIN)
    assert not stream.getvalue()
    async with asyncio.timeout(10):
        while not stream.getvalue():  # noqa: ASYNC110 - a real timer
            await asyncio.sleep(0.001)
    assert len(lines(stream)) == 2
    log.write(PLAIN)
    log.flush()
    log.flush()
    assert len(lines(stream)) == 3


async def test_no_more_than_so_many_are_gathered() -> None:
    stream = io.StringIO()
    log = log_to(stream)
    for _ in range(MAX_GATHERED):
        log.write(PLAIN)
    assert len(lines(stream)) == MAX_GATHERED


async def test_what_is_not_plain_is_searched_for_secrets_and_written_at_once() -> None:
    stream = io.StringIO()
    log = log_to(stream)
    log.write(replace(PLAIN, error="said password=hunter2", reason="internal"))
    log.write(replace(PLAIN, method='G"T'))
    failed, odd = lines(stream)
    assert "hunter2" not in failed["error"]
    assert failed["reason"] == "internal"
    assert odd["method"] == 'G"T'


async def test_a_quiet_line_shows_only_when_debugging() -> None:
    for level, shown in (("info", 0), ("debug", 1)):
        stream = io.StringIO()
        log_to(stream, level).write(PLAIN, quiet=True)
        assert len(stream.getvalue().splitlines()) == shown


async def test_other_set_ups_take_structlogs_way() -> None:
    console = io.StringIO()
    log_to(console, style="console").write(PLAIN)
    assert "request" in console.getvalue()
    assert not console.getvalue().startswith("{")
    nothing = io.StringIO()
    log_to(nothing, level="warning").write(PLAIN)
    assert not nothing.getvalue()
