"""The end of a stand: nothing is started again, and it is over when no process of it runs.

Guarantees: processes are waited for by their ids, those too whose parent was killed and that end because of it.
"""

import asyncio
import os
import threading
from pathlib import Path

from tests.bench.cpu import family

_SECONDS = 10.0


class End:
    """One stand's. `begun` is for threads that measure."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._processes: list[int] = []

    def begin(self) -> None:
        """From now on nothing may be started; what runs now is what `over` waits for, with what ran before."""
        self.begun.set()
        self._processes += family(os.getpid())[1:]

    async def over(self) -> None:
        """Return when none of them runs. Raises RuntimeError after some seconds, naming them."""
        deadline = asyncio.get_running_loop().time() + _SECONDS
        while left := [pid for pid in self._processes if runs(pid)]:
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"These processes did not end: {left}")
            await asyncio.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process is there and has not ended; a zombie waits for its parent only."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
