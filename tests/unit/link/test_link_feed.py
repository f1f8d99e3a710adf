"""When the control side's feed speaks: at once after a change, and on the beat."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from facade.link.control_client import SocketControlPort
from facade.link.control_server import BEAT_SECONDS, REST_SECONDS, control_app
from facade.link.unix import private_folder, served
from facade.wings import ControlSnapshot, Revocations
from tests.support.clock import FakeClock
from tests.support.ports import US, Dropped


class Side:
    """A control port of which only the snapshot is asked, and whoever wants to know of changes."""

    def __init__(self) -> None:
        self.now = ControlSnapshot()
        self.tell: Callable[[], None] = lambda: None

    def snapshot(self) -> ControlSnapshot:
        return self.now

    def revoke(self, device: str) -> None:
        self.now = ControlSnapshot(
            self.now.generation + 1, revocations=Revocations({("dev", device): 1.0})
        )

    def on_change(self, tell: Callable[[], None]) -> None:
        self.tell = tell


async def _eventually(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what happens behind a socket has no event here
            await asyncio.sleep(0.005)


async def test_a_change_that_is_told_is_sent_at_once_and_more_of_them_together(
    tmp_path: Path,
) -> None:
    side, clock = Side(), FakeClock()  # it never moves as far as the first beat
    path = private_folder(tmp_path / "run") / "control.sock"
    port: object = side
    app = control_app(port, clock=clock, on_change=side.on_change)  # type: ignore[arg-type]
    worker = SocketControlPort(path, clock=clock, observer=Dropped())
    async with served(app, path, allowed=US):
        await worker.start()
        try:
            await clock.wait_for_sleepers(2)
            await clock.run_for(REST_SECONDS)
            side.revoke("kiosk")
            side.tell()
            await _eventually(lambda: worker.snapshot().revocations == side.now.revocations)
            first = worker.snapshot()
            for device in ("till", "gate", "lamp"):
                side.revoke(device)
                side.tell()
                await asyncio.sleep(0.02)
            assert worker.snapshot() is first
            await clock.run_for(REST_SECONDS)
            await _eventually(lambda: worker.snapshot().revocations == side.now.revocations)
            assert worker.snapshot().generation == first.generation + 1
        finally:
            await worker.close()


async def test_the_beat_says_that_the_snapshot_holds_and_finds_what_nobody_told(
    tmp_path: Path,
) -> None:
    side, clock = Side(), FakeClock()
    path = private_folder(tmp_path / "run") / "control.sock"
    port: object = side
    app = control_app(port, clock=clock)  # type: ignore[arg-type]
    worker = SocketControlPort(path, clock=clock, observer=Dropped())
    async with served(app, path, allowed=US):
        await worker.start()
        try:
            await clock.run_for(BEAT_SECONDS / 2)
            assert worker.silent_seconds() == BEAT_SECONDS / 2
            await clock.run_for(BEAT_SECONDS / 2)
            await _eventually(lambda: worker.silent_seconds() == 0)
            side.revoke("kiosk")
            await clock.run_for(BEAT_SECONDS)
            await _eventually(lambda: worker.snapshot().revocations == side.now.revocations)
        finally:
            await worker.close()
