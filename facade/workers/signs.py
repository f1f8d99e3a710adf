"""A worker's signs of life: a pipe of its own to its parent, with one number a second.

Guarantees: neither end ever waits: what a parent that does not read has no room for is left out, and a parent
reads what there is and keeps the last of it. What a worker writes counts for itself alone, whatever it is. Not
by the socket that it answers on: a request and its answer cost both more than all else that they do idle.
"""

import os
import struct
from collections.abc import Callable
from contextlib import suppress

from facade.clock import Clock, on_the_beat

INTERVAL_SECONDS = 1.0
_READ_BYTES = 65536
"""What a pipe holds (pipe(7))."""
_SIGN = struct.Struct("<d")  # written whole or not at all, as it is shorter than PIPE_BUF


class Signs:
    """The parent's end; `given` is the descriptor for the worker, until `handed_over`."""

    def __init__(self) -> None:
        self._end, self.given = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open = True

    def handed_over(self) -> None:
        """The worker has its end, or will never have it."""
        os.close(self.given)

    def last(self) -> float | None:
        """The last one since the look before; None: there was none."""
        data = b""
        if self._open:
            with suppress(BlockingIOError):
                data = os.read(self._end, _READ_BYTES)
        whole = len(data) - len(data) % _SIGN.size
        return _SIGN.unpack_from(data, whole - _SIGN.size)[0] if whole else None

    def close(self) -> None:
        """There will be no more."""
        if self._open:
            self._open = False
            os.close(self._end)


async def give_signs(fd: int, silent: Callable[[], float], clock: Clock) -> None:
    """In the worker: write what `silent()` says into `fd`, every `INTERVAL_SECONDS`, until cancelled."""
    while True:
        with suppress(OSError):  # full: the parent does not run; broken: it is gone
            os.write(fd, _SIGN.pack(silent()))
        await on_the_beat(clock, INTERVAL_SECONDS)
