"""What a service manager hears from `facade up`: READY, a heartbeat while it turns, STOPPING."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from facade.up.manager import ServiceManager
from tests.support.clock import FakeClock
from tests.support.facade_process import facade_up

PATIENCE_SECONDS = 60.0
BEAT_SECONDS = 0.2


class Manager:
    """Listens at an address, and keeps what was said since the last look."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._said: list[str] = []

    def take(self) -> list[str]:
        """All that was said since the last look."""
        self._read()
        said, self._said = self._said, []
        return said

    async def until(self, word: str) -> None:
        """Return when it was said, again."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while word not in self.take():  # noqa: ASYNC110 - what is said is no event of ours
                await asyncio.sleep(0.01)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._said.append(self._sock.recv(4096).decode())

    @contextmanager
    def attending(self) -> Iterator[None]:
        """It reads at once, as one does: its queue holds ten words."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sock, self._read)
        try:
            yield
        finally:
            loop.remove_reader(self._sock)


@contextmanager
def listening(address: str) -> Iterator[Manager]:
    """A manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.setblocking(False)
        yield Manager(sock)


@pytest.mark.slow
async def test_it_hears_that_we_serve_turn_and_stop(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as manager:
        env = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": str(int(2 * BEAT_SECONDS * 1e6)),
        }
        with manager.attending():
            async with facade_up(tmp_path / "state", env=env) as facade:
                said = manager.take()
                assert set(said) == {"WATCHDOG=1", "READY=1"}
                assert said.count("READY=1") == 1
                await manager.until("WATCHDOG=1")
                os.kill(facade.pid, signal.SIGSTOP)
                try:
                    await asyncio.sleep(2 * BEAT_SECONDS)  # what was on its way is here
                    manager.take()
                    await asyncio.sleep(3 * BEAT_SECONDS)
                    assert manager.take() == []  # one that hangs says nothing
                finally:
                    os.kill(facade.pid, signal.SIGCONT)
                await manager.until("WATCHDOG=1")
                assert await facade.stop() == 0
                assert manager.take().count("STOPPING=1") == 1


async def test_a_manager_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as manager:
        told = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 7)
        tasks = [asyncio.create_task(told.tell(f"STATUS={number}")) for number in range(600)]
        await asyncio.sleep(0.05)
        assert not all(task.done() for task in tasks), "its queue was to be full"
        with manager.attending():
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.gather(*tasks)
        assert set(manager.take()) == {f"STATUS={number}" for number in range(600)}


async def test_it_hears_half_as_late_as_it_would_wait(tmp_path: Path) -> None:
    clock = FakeClock()
    with listening(str(tmp_path / "notify")) as manager:
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        async with ServiceManager(environ, 7).heartbeat(clock):
            await clock.run_for(14.9)
            assert manager.take() == ["WATCHDOG=1"]
            await clock.run_for(0.2)
            assert manager.take() == ["WATCHDOG=1"]
        await clock.run_for(60)
        assert manager.take() == []


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
        assert manager.take() == []
        await told.tell("READY=1")
        assert manager.take() == ["READY=1"]


async def test_an_abstract_socket_is_reached_too() -> None:
    name = f"facade-test-{os.getpid()}"
    with listening(f"\0{name}") as manager:
        await ServiceManager({"NOTIFY_SOCKET": f"@{name}"}, 7).tell("READY=1")
        assert manager.take() == ["READY=1"]


async def test_a_manager_that_is_away_or_was_never_there_disturbs_nobody(tmp_path: Path) -> None:
    await ServiceManager({}, 7).tell("READY=1")
    await ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, 7).tell("READY=1")
