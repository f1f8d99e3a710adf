"""What more of everything costs: requests, idling and starts of a facade that has much, the first two beside
one that has little.

Guarantees: what a facade does at its own times, as the look at its metadata every half a minute, is in the figures in
its proportion: they are taken over that time, of both at once.
"""

import statistics
import time
from collections.abc import Sequence
from functools import partial

from tests.bench.cpu import cpu_seconds, settled_cpu_seconds
from tests.bench.loads import Load, cached, each, requests, side_by_side, uncached_row
from tests.bench.rounds import OURS
from tests.bench.stand import PLAIN, Participant, Stand

GROWN_TARGETS = 9_999
"""Beside the one that is asked for: the most that one fleet may have."""
GROWN_FLEETS = 999
"""Further ones, without devices."""
GROWN_BLOBS = 1_000_000
PERIOD_SECONDS = 30.0
"""From one look at the metadata to the next: the default of `metadata.refresh_seconds`."""
BURSTS = 10
CONNECTIONS = 4
STARTS = 3


def growth_loads() -> list[Load]:
    """What more of everything costs a request, beside a facade that has little of anything."""
    return [
        Load(
            f"manifest, keep-alive, {GROWN_TARGETS + 1:,} signed targets and {GROWN_FLEETS + 1:,} fleets over 1",
            "CPU µs",
            (PLAIN,),
            partial(side_by_side, bursts=BURSTS, connections=CONNECTIONS, seconds=PERIOD_SECONDS),
            {PLAIN: 1.1},
            rounds=3,
            grow=_sign,
        ),
        Load(
            f"at rest, {GROWN_TARGETS + 1:,} signed targets and {GROWN_FLEETS + 1:,} fleets over 1",
            "CPU ms a second",
            (PLAIN,),
            _at_rest,
            {},
            rounds=1,
            grow=lambda stand: None,
        ),
        Load(
            f"uncached and cached blobs, {GROWN_BLOBS + 15:,} in the index over 15",
            "CPU s/GB",
            (PLAIN,),
            each(lambda stand, who: uncached_row(stand, who) + cached(stand, who, 1, 64), turns=2),
            {PLAIN: 1.1},
            rounds=5,
            # Rows alone, without files: the store never lists its folders, so they are all it notices.
            grow=lambda stand: stand.fill_index(GROWN_BLOBS),
        ),
        Load(
            f"start, with {GROWN_BLOBS:,} blobs in the index",
            "s, wall",
            (),
            each(_start_wall),
            {"bound": 1.5},
            rounds=1,
            grow=lambda stand: None,
        ),
        Load(
            f"start, with {GROWN_BLOBS:,} blobs in the index, CPU",
            "CPU s",
            (),
            each(_start_cpu),
            {},
            rounds=1,
            grow=lambda stand: None,
        ),
    ]


def _sign(stand: Stand) -> None:
    # Asked for once before: the metadata of a fleet without devices is not looked at.
    requests(stand, stand.participants[OURS], 20, keep_alive=True)
    stand.sign(GROWN_TARGETS, GROWN_FLEETS)


def _at_rest(stand: Stand, whom: Sequence[Participant]) -> list[float]:
    before = [settled_cpu_seconds(who.pid) for who in whom]
    time.sleep(PERIOD_SECONDS)
    after = [cpu_seconds(who.pid) for who in whom]
    spent = zip(before, after, strict=True)
    return [(now - then) / PERIOD_SECONDS * 1000 for then, now in spent]


def _start_wall(stand: Stand, who: Participant) -> float:
    return statistics.median(_start(stand)[0] for _ in range(STARTS))


def _start_cpu(stand: Stand, who: Participant) -> float:
    return statistics.median(_start(stand)[1] for _ in range(STARTS))


def _start(stand: Stand) -> tuple[float, float]:
    """Seconds until it serves: wall, and CPU of all its processes."""
    stand.facade_down()
    began = time.monotonic()
    stand.facade_up()
    return time.monotonic() - began, cpu_seconds(stand.facade.pid)
