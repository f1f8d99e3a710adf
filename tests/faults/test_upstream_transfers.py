"""Transfers that break, stall, trickle or lie, against one running `facade up`.

Each fault meets blobs of its own. In each nothing wrong is served, what is cached goes on being served,
the operator sees why, and afterwards the next pull works without a restart.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
import pytest_asyncio

from tests.support.misbehaviour import (
    Misbehaviour,
    chain,
    corrupt,
    ignore_range,
    longer_by,
    stall,
    status,
    trickle,
    truncate,
    without_length,
    wrong_bytes,
    wrong_length,
)
from tests.support.stricken import HELD, Goods, Read, Stricken, stricken

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

SIZE = 512 * 1024
TENTHS = [SIZE * tenth // 10 for tenth in range(11)]
IMAGES = 64


@dataclass
class Scene:
    """The facade, an image that is cached, and images that nobody pulled yet."""

    it: Stricken
    cached: Goods
    fresh: Iterator[Goods]

    def goods(self, count: int) -> list[Goods]:
        return [next(self.fresh) for _ in range(count)]

    def break_blob(self, goods: Goods, *changes: Misbehaviour, times: int | None = None) -> None:
        self.it.registry.script(f"*/blobs/{goods.layer}", *changes, times=times)

    def ranges(self, goods: Goods) -> list[str | None]:
        """The ranges that the registry was asked for."""
        seen = self.it.registry.seen(f"*/blobs/{goods.layer}")
        return [request.headers.get("range") for request in seen]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with stricken(tmp_path_factory.mktemp("stricken")) as it:
        cached, *fresh = await it.ship(*(f"i{number}" for number in range(IMAGES)), size=SIZE)
        await it.pulls(cached)
        await it.settled()
        yield Scene(it, cached, iter(fresh))
        await it.last_error("")


@pytest_asyncio.fixture(loop_scope="module")
async def scene(shared: Scene) -> AsyncIterator[Scene]:
    """The scene; under each fault it serves what is cached, and after it what is not."""
    yield shared
    await shared.it.pulls(shared.cached)
    shared.it.registry.behave()
    await shared.it.heals(next(shared.fresh))
    assert await shared.it.ready() == (200, [])


async def test_cut_at_every_tenth_of_a_blob(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    goods = scene.goods(len(TENTHS))
    for each, cut in zip(goods, TENTHS, strict=True):
        scene.break_blob(each, truncate(cut), times=1)
    await asyncio.gather(*map(it.pulls, goods))
    for each, cut in zip(goods, TENTHS, strict=True):
        again = {0: [None], SIZE: []}.get(cut, [f"bytes={cut}-"])
        assert scene.ranges(each) == [None, *again]
    await it.event("transfer_resumes", since=mark, words="broke off in the middle of a blob")


async def test_cut_at_every_tenth_of_one_blob_in_turn(scene: Scene) -> None:
    [goods] = scene.goods(1)
    # Each answer brings a tenth, and the first one nothing.
    pieces = [0, *(after - before for before, after in pairwise(TENTHS))]
    scene.break_blob(goods, *map(truncate, pieces))
    await scene.it.pulls(goods)
    assert scene.ranges(goods) == [None, None, *(f"bytes={tenth}-" for tenth in TENTHS[1:-1])]


async def test_cut_at_every_tenth_by_a_registry_that_knows_no_ranges(scene: Scene) -> None:
    goods = scene.goods(len(TENTHS))
    for each, cut in zip(goods, TENTHS, strict=True):
        scene.break_blob(each, truncate(cut), ignore_range())
    await asyncio.gather(*map(scene.it.pulls, goods))


async def test_a_registry_that_refuses_in_the_middle_is_resumed_by_a_later_pull(
    scene: Scene,
) -> None:
    it = scene.it
    [goods] = scene.goods(1)
    half = SIZE // 2
    scene.break_blob(goods, truncate(half), status(403))
    got = await it.pull(goods)
    assert (got.status, got.complete) == (200, False)
    assert goods.payload.startswith(got.body)
    await it.last_error("refused")
    it.registry.behave()
    await it.heals(goods)
    assert scene.ranges(goods)[-1] == f"bytes={half}-"


async def test_a_stall_in_the_middle_counts_as_broken_and_is_hidden(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    [goods] = scene.goods(1)
    scene.break_blob(goods, stall(SIZE // 3), times=1)
    await it.pulls(goods)
    assert scene.ranges(goods) == [None, f"bytes={SIZE // 3}-"]
    await it.event("transfer_resumes", since=mark, words="too slowly")


async def test_a_registry_that_stalls_at_every_answer_is_given_up_in_bounded_time(
    scene: Scene,
) -> None:
    it = scene.it
    [goods] = scene.goods(1)
    scene.break_blob(goods, stall(0))
    got = await it.pull(goods)  # the test's time limit is the bound
    assert (got.status, got.complete) != (200, True)
    assert got.body == b"" or got.reason == "upstream-unreachable"
    await it.last_error("too slowly")


async def test_a_trickle_below_the_minimum_rate_counts_as_broken(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    [goods] = scene.goods(1)
    scene.break_blob(goods, trickle(512, 0.1), times=1)  # 5 KiB a second; 16 KiB are asked for
    await it.pulls(goods)
    assert len(scene.ranges(goods)) == 2
    await it.event("transfer_resumes", since=mark, words="too slowly")


async def test_a_trickle_above_it_is_waited_for(scene: Scene) -> None:
    [goods] = scene.goods(1)
    scene.break_blob(goods, trickle(32 * 1024, 0.1))
    await scene.it.pulls(goods)
    assert scene.ranges(goods) == [None]


WRONG = {
    "the first byte": corrupt(0),
    "a byte in the middle": corrupt(SIZE // 2),
    "the last byte": corrupt(SIZE - 1),
    "the last byte, of a length not told": chain(corrupt(SIZE - 1), without_length()),
    "all bytes": wrong_bytes(bytes(SIZE)),
    "one byte too many": longer_by(1),
    "one byte too many, of a length not told": chain(longer_by(1), without_length()),
    "twice as many": longer_by(SIZE),
    "one byte too few": wrong_bytes(bytes(SIZE - 1)),
    "one byte less announced": wrong_length(-1),
    "one byte more announced": wrong_length(1),
}


async def test_wrong_bytes_and_lengths_are_never_complete_and_never_kept(scene: Scene) -> None:
    it, mark = scene.it, scene.it.mark
    failed = await it.metric("facade_integrity_failures_total")
    goods = dict(zip(WRONG, scene.goods(len(WRONG)), strict=True))
    for what, each in goods.items():
        scene.break_blob(each, WRONG[what])

    async def refused(what: str) -> None:
        each = goods[what]
        first, second = await it.pull(each), await it.pull(each)
        assert _withheld(first, each), what
        # A runtime that asks again at once is told so, and the registry is left alone.
        assert (second.status, second.reason) == (502, "integrity"), what
        assert len(scene.ranges(each)) == 1, what
        held = await it.event("integrity_failed", since=mark, words=str(each.layer))
        assert held["host"] == it.host

    await asyncio.gather(*map(refused, WRONG))
    assert await it.metric("facade_integrity_failures_total") == failed + len(WRONG)
    store = it.facade.state / "cache"
    kept = {path.name.partition(".")[0] for path in (store / "blobs").rglob("*")}
    assert kept.isdisjoint(each.layer.hex for each in goods.values())
    assert list((store / "ingest").iterdir()) == []


def _withheld(got: Read, goods: Goods) -> bool:
    """Whether what was sent cannot be taken for the blob, nor any of the held part was sent."""
    if got.status == 200:
        return not got.complete and len(got.body) <= len(goods.payload) - HELD
    return got.status == 502 and got.reason == "integrity"
