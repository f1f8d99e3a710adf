"""Which snapshot a worker takes for current."""

import asyncio
from dataclasses import replace
from pathlib import Path

from facade.clock import SystemClock
from facade.link.calls import Caller
from facade.link.feed_codec import Frame, Position
from facade.link.follower import Follower
from facade.reasons import Reason
from facade.wings import ControlSnapshot, Revocations
from tests.support.clock import settle


def _follower(folder: Path) -> Follower:
    caller = Caller(folder / "nobody.sock", "Nobody", Reason.INTERNAL)
    return Follower(caller, SystemClock(), lost=lambda: None)


async def test_a_later_generation_of_another_process_is_not_what_was_waited_for(
    tmp_path: Path,
) -> None:
    follower = _follower(tmp_path)
    follower._hold(Frame(Position("gone", 7), ControlSnapshot(7)))
    waiting = asyncio.create_task(follower.reached(Position("new", 2)))
    await settle()
    follower._hold(Frame(Position("gone", 8), ControlSnapshot(8)))
    follower._hold(Frame(Position("new", 1), ControlSnapshot(1)))
    await settle()
    assert not waiting.done()
    follower._hold(Frame(Position("new", 3), ControlSnapshot(3)))
    await asyncio.wait_for(waiting, 20)


async def test_the_generation_changes_exactly_with_the_content(tmp_path: Path) -> None:
    follower = _follower(tmp_path)
    first = follower.snapshot
    follower._hold(Frame(Position("a", 9), ControlSnapshot(9)))
    assert follower.snapshot is first, "a control side that restarts and has the same to say"
    revoked = ControlSnapshot(1, revocations=Revocations({("dev", "kiosk"): 1.0}))
    follower._hold(Frame(Position("b", 1), revoked))
    second = follower.snapshot
    assert second.revocations == revoked.revocations
    assert second.generation != first.generation
    follower._hold(Frame(Position("c", 5), replace(revoked, generation=5)))
    assert follower.snapshot is second
