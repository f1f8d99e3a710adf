"""Which snapshot a worker takes for current."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.link.calls import Caller
from facade.link.feed_codec import Frame, Position, frame_out
from facade.link.follower import Follower
from facade.link.strict import Malformed
from facade.reasons import Reason
from facade.wings import ControlSnapshot, Revocations
from tests.support.clock import settle


def _follower(folder: Path, name: str = "nobody.sock") -> Follower:
    caller = Caller(folder / name, "Nobody", Reason.INTERNAL)
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


async def test_an_empty_frame_does_not_say_that_what_is_held_is_current(tmp_path: Path) -> None:
    follower = _follower(tmp_path)
    with pytest.raises(Malformed):
        await follower._take(b"")
    assert not follower.up.is_set()


async def test_frames_in_pieces_are_read_and_a_beat_for_another_snapshot_ends_the_feed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "control.sock"
    held, missed = Position("a", 1), Position("a", 2)
    heard: list[float] = []
    gone = asyncio.Event()

    async def feed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for frame in (Frame(held, ControlSnapshot(1)), Frame(held), Frame(missed)):
            data = frame_out(frame)
            for piece in (data[:2], data[2:9], data[9:]):
                writer.write(piece)
                await asyncio.sleep(0.02)
            heard.append(follower.heard_at)
        await reader.read()
        writer.close()
        gone.set()

    follower = _follower(tmp_path, path.name)
    server = await asyncio.start_unix_server(feed, path)
    task = asyncio.create_task(follower.run())
    try:
        await asyncio.wait_for(gone.wait(), 20)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await follower._caller.close()
        server.close()
    assert follower.snapshot.generation == 0, "the same as none"
    assert heard[0] < heard[1] == heard[2]
