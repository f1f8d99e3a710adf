"""What the process under soak takes, over time, and the verdict on it.

Guarantees: memory (proportional set size) and descriptors are those of each of its processes by itself, so that no
process hides another's leak; the verdict is a pure function of samples. A straight line through the second half of
the run says whether memory grows: the first half is warm-up (imports, pools, caches of decisions).
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facade.serving.blobs.local import MAX_IDLE_OBJECTS
from tests.bench.cpu import cpu_seconds, family, own_pss_kib

SAMPLE_SECONDS = 1.0
MAX_GROWTH_KIB = 8 * 1024
"""Per process, over the second half of the run: more than allocator noise (some 4 MiB seen), less than a
leak of a few KiB per pull makes in ten minutes."""
MAX_FURTHER_DESCRIPTORS = 6
"""Per process: at rest after the load, against rest before it, cached objects apart."""
MAX_CACHED = MAX_IDLE_OBJECTS
"""Cached objects that a process keeps open although nobody reads them."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open descriptors of one process.

    Arguments:
        cached: of objects in the cache, which are kept open on purpose.
        gone: of files that are no more: they hold disk space that nobody sees.
        other: all the rest.
    """

    cached: int = 0
    gone: int = 0
    other: int = 0

    @property
    def all(self) -> int:
        """Together."""
        return self.cached + self.gone + self.other


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Arguments:
        at: seconds since the beginning.
        pss_kib: memory of each process, by PID.
        descriptors: open ones, of all processes.
        cpu: seconds used so far, by all processes.
    """

    at: float
    pss_kib: Mapping[int, int]
    descriptors: int
    cpu: float

    @property
    def all_pss_kib(self) -> int:
        """Of all processes together."""
        return sum(self.pss_kib.values())


def look(pid: int, begun: float) -> Sample:
    """Now."""
    memory = {}
    for process in family(pid):
        with contextlib.suppress(OSError):  # it has just ended
            memory[process] = own_pss_kib(process)
    count = sum(each.all for each in descriptors(pid).values())
    return Sample(time.monotonic() - begun, memory, count, cpu_seconds(pid))


def descriptors(pid: int) -> dict[int, Open]:
    """Now, of `pid` and its descendants."""
    return {process: _descriptors(process) for process in family(pid)}


def _descriptors(process: int) -> Open:
    cached = gone = other = 0
    for link in Path(f"/proc/{process}/fd").glob("*"):
        with contextlib.suppress(OSError):  # it has just been closed
            target = str(link.readlink())
            # Maps of unlinked scratch memory are no files of ours.
            if target.endswith("(deleted)") and target.startswith("/") and "memfd" not in target:
                gone += 1
            elif "/cache/blobs/" in target:
                cached += 1
            else:
                other += 1
    return Open(cached, gone, other)


def fewest(seen: Sequence[Mapping[int, Open]]) -> dict[int, Open]:
    """Of several looks, each process's one with the fewest; of the processes that the last one saw."""
    return {
        process: min(
            (look[process] for look in seen if process in look),
            key=lambda each: (each.gone, each.other),
        )
        for process in seen[-1]
    }


async def watch(pid: int, samples: list[Sample]) -> None:
    """Look until cancelled."""
    begun = time.monotonic()
    while True:
        samples.append(await asyncio.to_thread(look, pid, begun))
        await asyncio.sleep(SAMPLE_SECONDS)


def growth_kib(samples: Sequence[Sample]) -> dict[int, float]:
    """How much each process's memory grew over the second half, along a straight line through it."""
    half = samples[len(samples) // 2 :]
    return {
        process: _growth(
            [(each.at, each.pss_kib[process]) for each in half if process in each.pss_kib]
        )
        for process in {process for each in half for process in each.pss_kib}
    }


def _growth(points: Sequence[tuple[float, int]]) -> float:
    if len(points) < 2:
        return 0.0
    slope, _ = statistics.linear_regression([at for at, _ in points], [size for _, size in points])
    return slope * (points[-1][0] - points[0][0])
