"""Lines of several processes on one pipe: each comes whole."""

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from facade.observability.lines import MARK, MAX_WRITE_BYTES, fitted, writes
from facade.observability.logs import configure

PROCESSES = 4

SHOUT = """
import asyncio, sys, structlog
from facade.observability.access import Access, AccessLog
from facade.observability.logs import configure
configure("info", "json", sys.stderr)
async def main():
    log, access = structlog.get_logger(), AccessLog.configured()
    for number in range(60):
        for _ in range(20):
            access.write(Access("0" * 16, "GET", "blobs", 200, "served", 1, 1.0))
        log.error("long", detail=sys.argv[1] * 5000, count=number)
        access.flush()
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_lines_of_several_processes_do_not_mix() -> None:
    reading, writing = os.pipe()
    processes = [
        subprocess.Popen([sys.executable, "-c", SHOUT, f"{number}"], stderr=writing)
        for number in range(PROCESSES)
    ]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = [json.loads(line) for line in pipe]
    for process in processes:
        assert process.wait(30) == 0
    long = [line for line in lines if line["event"] == "long"]
    assert len(long) == PROCESSES * 60
    assert len(lines) == PROCESSES * 60 * 21
    assert all(len(set(line["detail"].removesuffix(MARK))) == 1 for line in long)


values = st.one_of(
    st.text(max_size=6000), st.integers(), st.lists(st.text(max_size=400), max_size=30)
)


@given(st.dictionaries(st.text(max_size=30), values, max_size=12))
def test_whatever_it_says_it_fits_and_is_json(fields: dict[str, Any]) -> None:
    line = fitted(fields, json.dumps)
    assert len(line) + 1 <= MAX_WRITE_BYTES
    read = json.loads(line)
    whole = json.dumps(fields)
    assert (line == whole) == (len(whole) + 1 <= MAX_WRITE_BYTES)
    assert set(read) == set(fields)


def test_the_longest_field_is_cut_and_a_traceback_keeps_its_end() -> None:
    cut = json.loads(fitted({"event": "x", "detail": "a" * 9000, "path": "b" * 300}, json.dumps))
    assert cut["path"] == "b" * 300
    assert cut["detail"].endswith("a" + MARK)
    cut = json.loads(fitted({"event": "x", "exception": "a" * 9000 + "ValueError: no"}, json.dumps))
    assert cut["exception"].startswith(MARK + "a")
    assert cut["exception"].endswith("ValueError: no")


def test_what_is_nothing_but_short_fields_by_the_hundred_is_told_as_such() -> None:
    line = fitted({f"name{number}": number for number in range(1000)}, json.dumps)
    assert json.loads(line) == {"event": "line_too_long", "level": "error", "count": 1000}


def test_neighbours_share_a_write_up_to_its_bound() -> None:
    lines = [f"{'x' * 499}\n"] * 20
    found = list(writes(lines))
    assert [len(each) for each in found] == [4000, 4000, 2000]
    assert "".join(found) == "".join(lines)
    assert list(writes([])) == []


def test_what_a_library_logs_fits_too() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("library").error("%s", "x" * 20_000)
    [line] = stream.getvalue().splitlines()
    assert len(line) < MAX_WRITE_BYTES
    assert json.loads(line)["level"] == "error"
