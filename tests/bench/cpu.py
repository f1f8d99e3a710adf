"""What a server costs: CPU time and memory of a process and everything it started.

Guarantees: nanosecond CPU clocks (clock_getcpuclockid(3)), not 10 ms ticks; threads that ended count
too. Does not see children that ended between two looks: the servers measured here keep theirs.
"""

import contextlib
import re
import time
from pathlib import Path

_CPUCLOCK_SCHED = 2  # linux/posix-timers.h: user and system time of the whole process
_SETTLED_SECONDS = 0.15
_SETTLED_SHARE = 0.05
_SETTLE_LIMIT_SECONDS = 10.0


def family(pid: int) -> list[int]:
    """`pid` and its descendants."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                found.extend(int(child) for child in path.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of `pid` and its descendants, in seconds."""
    return sum(time.clock_gettime(~process << 3 | _CPUCLOCK_SCHED) for process in family(pid))


def settled_cpu_seconds(pid: int, *, aftermath_seconds: float = 0.0) -> float:
    """`cpu_seconds`, once what goes on behind an answer (publishing, a second copy) is over.

    Arguments:
        aftermath_seconds: how long after the answer some of that may begin.
    """
    time.sleep(aftermath_seconds)
    deadline = time.monotonic() + _SETTLE_LIMIT_SECONDS
    before = cpu_seconds(pid)
    while True:
        time.sleep(_SETTLED_SECONDS)
        now = cpu_seconds(pid)
        if now - before < _SETTLED_SECONDS * _SETTLED_SHARE or time.monotonic() > deadline:
            return now
        before = now


def pss_kib(pid: int) -> int:
    """Proportional resident memory of `pid` and its descendants, in KiB."""
    return sum(own_pss_kib(process) for process in family(pid))


def own_pss_kib(pid: int) -> int:
    """Proportional resident memory of `pid` alone, in KiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0
