"""A story told to two device ports, one with lanes and one without, and what came of it compared: every byte
of every answer (but for dates and request ids), access lines, records of pulls and counts.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from facade.wings import IntegrityFailed, Pulled
from tests.support.facade_app import FacadeApp, Tuning
from tests.support.lanes import IMAGE, SECONDS, Bench, Wire
from tests.support.pki import client_context
from tests.support.registry import Registry

Story = Callable[[Bench], Awaitable[list[bytes]]]
"""Gives what the device got."""
Report = tuple[object, object, object, object]
TUNING = Tuning()
AT_HAND = ("manifests", "blobs", "blobs")
"""Everything is at hand after that, open, and understood."""
_TIMES = re.compile(
    r"^#|_bucket|_created\b|_seconds(?!_count)|facade_process_|loop_lag|metadata_|python_|open_connections"
)
_OWN = frozenset({"seconds", "request_id", "log_level", "certificate"})


@dataclass
class Outcome:
    """What came of a story."""

    got: list[bytes]
    lines: list[dict[str, Any]]
    pulled: list[tuple[object, ...]]
    failures: list[tuple[str, str]]
    counts: list[str]
    asked: int
    """Requests that the HTTP server saw."""
    fetched: list[tuple[str, str]]
    """Requests that the registry saw."""


async def told(
    story: Story,
    folder: Path,
    registry: Registry,
    *,
    lanes: bool,
    tuning: Tuning = TUNING,
    before: Sequence[str] = AT_HAND,
) -> Outcome:
    """What came of it, one way.

    Arguments:
        before: what a device asks for before the story begins.
    """
    async with FacadeApp(folder, tuning=replace(tuning, lanes=lanes)) as facade:
        target = await facade.sign(registry, "org/app", IMAGE)
        context = client_context(facade.server_ca, facade.ca.device())
        bench = Bench(facade, registry, target, context)
        async with bench.wire() as wire:
            for kind in before:
                await wire.ask(bench.get(kind))
                await facade.settled()
        await quiet(facade)
        facade.control.events.clear()
        registry.requests.clear()
        asked, counts = facade.http_server.requests_count, counted(facade)
        with capture_logs() as logs:
            got = await story(bench)
            await facade.settled()
            await quiet(facade)
        registry.behave()
        events = facade.control.events
        return Outcome(
            got,
            [{k: v for k, v in line.items() if k not in _OWN} for line in logs],
            [
                (e.device, e.digest, e.role, e.outcome, e.reason, e.bytes_sent, e.cache)
                for e in events
                if isinstance(e, Pulled)
            ],
            [(e.digest, e.detail) for e in events if isinstance(e, IntegrityFailed)],
            [line for line in counted(facade) if line not in counts],
            facade.http_server.requests_count - asked,
            [(each.method, each.path) for each in registry.requests],
        )


async def quiet(facade: FacadeApp) -> None:
    """Return when no request is in hand, and what came of them is written down."""
    async with asyncio.timeout(SECONDS):
        while facade.pulls.requests.total or facade.guard.running:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)


def counted(facade: FacadeApp) -> list[str]:
    lines = facade.metrics.render().decode().splitlines()
    return [line for line in lines if not _TIMES.search(line)]


async def same(
    tmp_path: Path, story: Story, *, tuning: Tuning = TUNING, before: Sequence[str] = AT_HAND
) -> tuple[Outcome, Outcome]:
    """What the two come to, with the lane and without, must be the same."""
    short, long = await both(tmp_path, story, tuning=tuning, before=before)
    assert short.got == long.got
    assert (short.pulled, short.failures) == (long.pulled, long.failures), (short, long)
    assert sorted(map(repr, short.lines)) == sorted(map(repr, long.lines)), (short, long)
    assert short.counts == long.counts, (short.counts, long.counts)
    assert sorted(short.fetched) == sorted(long.fetched)
    return short, long


async def both(
    tmp_path: Path, story: Story, *, tuning: Tuning = TUNING, before: Sequence[str] = AT_HAND
) -> tuple[Outcome, Outcome]:
    """With the lane, then without."""
    async with Registry() as registry:
        short, long = [
            await told(story, tmp_path / name, registry, lanes=lanes, tuning=tuning, before=before)
            for name, lanes in (("short", True), ("long", False))
        ]
    return short, long


async def all_in_turn(wire: Wire, *requests: bytes) -> list[bytes]:
    """Each is sent when the one before was answered."""
    got = []
    for request in requests:
        wire.writer.write(request)
        got.append(await wire.verbatim(body=not request.startswith(b"HEAD")))
    return got


async def half_same(
    tmp_path: Path, story: Story, *, tuning: Tuning = TUNING, before: Sequence[str] = AT_HAND
) -> tuple[list[Report], list[Report]]:
    """What was reported both ways, where how many bytes went out is left to chance."""
    short, long = await both(tmp_path, story, tuning=tuning, before=before)
    assert (short.asked, long.asked) == (0, 1)
    first, second = (
        [(role, outcome, reason, cache) for _, _, role, outcome, reason, sent, cache in one.pulled]
        for one in (short, long)
    )
    lines = [
        [{k: v for k, v in line.items() if k not in ("bytes", "error")} for line in one.lines]
        for one in (short, long)
    ]
    assert lines[0] == lines[1]
    return first, second
