"""The workers of a running `facade up`, seen from outside: who they are, and what each does.

Guarantees: nothing is taken from the product's words but the worker's number in its log lines; everything
else is the kernel's (`/proc`). Connections are fresh ones, so that the kernel spreads them.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.facade_process import FacadeProcess
from tests.support.live import Answered, Live

CONNECTIONS = 40
"""That none of three workers gets any of them happens once in four million times."""
PATIENCE_SECONDS = 60.0


def workers_of(pid: int) -> list[int]:
    """The PIDs of the workers that process `pid` started."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        children += map(int, path.read_text().split())
    return sorted(child for child in children if "facade.app.worker" in command(child))


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def pss_mib(pid: int) -> float:
    """Its proportional share of memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


async def until(condition: Callable[[], bool], within: float = PATIENCE_SECONDS) -> None:
    """Return when it holds; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - another process's doing is no event of ours
            await asyncio.sleep(0.02)


async def from_all(it: Live, path: str, connections: int = CONNECTIONS) -> Sequence[Answered]:
    """One request on each of many fresh connections."""
    return await asyncio.gather(*(it.get(path) for _ in range(connections)))


async def everywhere(it: Live, path: str, status: int, within: float = 5.0) -> None:
    """Return when every fresh connection is answered with `status`; fail after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        started = loop.time()
        answers = await from_all(it, path)
        if {answer.status for answer in answers} == {status}:
            return
        assert started < deadline, Counter((answer.status, answer.reason) for answer in answers)


def answered_by(facade: FacadeProcess, since: int = 0) -> set[int]:
    """Which workers answered requests, by their log lines after the first `since` ones."""
    return {
        event["worker"]
        for event in facade.events[since:]
        if event.get("event") == "request" and "worker" in event
    }


def mapped(pid: int) -> str:
    """What it has mapped into memory, as the kernel lists it."""
    return Path(f"/proc/{pid}/maps").read_text()


def environment(pid: int) -> bytes:
    """What it was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def owner(pid: int) -> int:
    """The user that it runs as, in every respect (real, effective, saved, file system)."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)$", text, re.MULTILINE)
    assert found is not None
    [uid] = set(found.groups())
    return int(uid)


def command(pid: int) -> str:
    """Its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


def descriptors(pid: int) -> list[str]:
    """What its open files are."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return found


def flock_holder(folder: Path, pattern: str, pids: Sequence[int]) -> int | None:
    """Which of these processes has a file of `folder` that matches locked for itself alone."""
    for path in folder.glob(pattern):
        try:
            inode = path.stat().st_ino
        except FileNotFoundError:
            continue
        for words in map(str.split, Path("/proc/locks").read_text().splitlines()):
            if words[1:4:2] == ["FLOCK", "WRITE"] and words[5].endswith(f":{inode}"):
                return int(words[4]) if int(words[4]) in pids else None
    return None


def peer_ports(pid: int) -> set[int]:
    """The ports of loopback that the other ends of its TCP connections have."""
    sockets = {name.removeprefix("socket:[").rstrip("]") for name in descriptors(pid)}
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[9] in sockets}
