"""Reading manifests without holding up everybody else.

Guarantees: a manifest of ordinary size is read at once, without waiting for anything; a large one (4 MiB
of layers take 0.2 s) is read in a thread. What `job` does with it is the caller's.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

INLINE_BYTES = 256 * 1024
"""The largest manifest that is read on the loop: some 10 ms."""

_Result = TypeVar("_Result")


def is_small(data: bytes) -> bool:
    """Whether `parsed` reads it without waiting."""
    return len(data) <= INLINE_BYTES


async def parsed(data: bytes, job: Callable[[], _Result]) -> _Result:
    """The result of `job`, which reads the manifest in `data`. Raises what `job` raises."""
    return job() if is_small(data) else await asyncio.to_thread(job)
