"""What the process under soak takes, over time, and the verdict on it.

Guarantees: memory is proportional set size and descriptors are counted over all of its processes; the verdict is a
pure function of samples. A straight line through the second half of the run says whether memory grows: the first
half is warm-up (imports, pools, caches of decisions).
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facade.serving.blobs.local import MAX_IDLE_OBJECTS
from tests.bench.cpu import cpu_seconds, family, pss_kib

SAMPLE_SECONDS = 1.0
MAX_GROWTH_KIB = 8 * 1024
"""Per serving process, over the second half of the run: more than allocator noise (some 4 MiB seen), less than a
leak of a few KiB per pull makes in ten minutes."""
MAX_FURTHER_DESCRIPTORS = 6
"""At rest after the load, against rest before it, cached objects apart."""
MAX_CACHED = MAX_IDLE_OBJECTS
"""Cached objects that a serving process keeps open although nobody reads them."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open descriptors of all processes.

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
    """One look: seconds since the beginning, PSS in KiB, open descriptors, CPU seconds so far."""

    at: float
    pss_kib: int
    descriptors: int
    cpu: float


def look(pid: int, begun: float) -> Sample:
    """Now."""
    return Sample(time.monotonic() - begun, pss_kib(pid), descriptors(pid).all, cpu_seconds(pid))


def descriptors(pid: int) -> Open:
    """Now."""
    cached = gone = other = 0
    for process in family(pid):
        for link in Path(f"/proc/{process}/fd").glob("*"):
            with contextlib.suppress(OSError):  # it has just been closed
                target = str(link.readlink())
                # Maps of unlinked scratch memory are no files of ours.
                if (
                    target.endswith("(deleted)")
                    and target.startswith("/")
                    and "memfd" not in target
                ):
                    gone += 1
                elif "/cache/blobs/" in target:
                    cached += 1
                else:
                    other += 1
    return Open(cached, gone, other)


async def watch(pid: int, samples: list[Sample]) -> None:
    """Look until cancelled."""
    begun = time.monotonic()
    while True:
        samples.append(await asyncio.to_thread(look, pid, begun))
        await asyncio.sleep(SAMPLE_SECONDS)


def growth_kib(samples: Sequence[Sample]) -> float:
    """How much memory grew over the second half, along a straight line through it."""
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    slope, _ = statistics.linear_regression(
        [sample.at for sample in half], [sample.pss_kib for sample in half]
    )
    return slope * (half[-1].at - half[0].at)


def processes(pid: int) -> int:
    """How many there are."""
    return len([p for p in family(pid) if Path(f"/proc/{p}").exists()])
