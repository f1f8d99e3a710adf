"""What a service manager hears from `facade up`: READY, a heartbeat while it turns, STOPPING."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from facade.up.manager import ServiceManager
from tests.support.clock import FakeClock
from tests.support.facade_process import facade_up

PATIENCE_SECONDS = 60.0
BEAT_SECONDS = 0.2


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """A manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.setblocking(False)
        yield sock


def heard(manager: socket.socket) -> list[str]:
    """All that was said since the last look."""
    said = []
    while True:
        try:
            said.append(manager.recv(4096).decode())
        except BlockingIOError:
            return said


async def _next(manager: socket.socket) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode()


@pytest.mark.slow
async def test_it_hears_that_we_serve_turn_and_stop(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as manager:
        env = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": str(int(2 * BEAT_SECONDS * 1e6)),
        }
        async with facade_up(tmp_path / "state", env=env) as facade:
            said = heard(manager)
            assert set(said) == {"WATCHDOG=1", "READY=1"}
            assert said.count("READY=1") == 1
            assert await _next(manager) == "WATCHDOG=1"
            os.kill(facade.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(2 * BEAT_SECONDS)  # what was on its way is here
                heard(manager)
                await asyncio.sleep(3 * BEAT_SECONDS)
                assert heard(manager) == []  # one that hangs says nothing
            finally:
                os.kill(facade.pid, signal.SIGCONT)
            assert await _next(manager) == "WATCHDOG=1"
            assert await facade.stop() == 0
            assert heard(manager).count("STOPPING=1") == 1


async def test_it_hears_half_as_late_as_it_would_wait(tmp_path: Path) -> None:
    clock = FakeClock()
    with listening(str(tmp_path / "notify")) as manager:
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        async with ServiceManager(environ, 7).heartbeat(clock):
            await clock.run_for(14.9)
            assert heard(manager) == ["WATCHDOG=1"]
            await clock.run_for(0.2)
            assert heard(manager) == ["WATCHDOG=1"]
        await clock.run_for(60)
        assert heard(manager) == []


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"},
    ],
)
async def test_no_heartbeat_where_none_is_wanted_of_us(
    tmp_path: Path, more: dict[str, str]
) -> None:
    clock = FakeClock()
    with listening(str(tmp_path / "notify")) as manager:
        told = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}, 7)
        async with told.heartbeat(clock):
            await clock.run_for(100)
        assert heard(manager) == []
        told.tell("READY=1")
        assert heard(manager) == ["READY=1"]


def test_an_abstract_socket_is_reached_too() -> None:
    name = f"facade-test-{os.getpid()}"
    with listening(f"\0{name}") as manager:
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}, 7).tell("READY=1")
        assert heard(manager) == ["READY=1"]


def test_a_manager_that_is_away_or_was_never_there_disturbs_nobody(tmp_path: Path) -> None:
    ServiceManager({}, 7).tell("READY=1")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, 7).tell("READY=1")
