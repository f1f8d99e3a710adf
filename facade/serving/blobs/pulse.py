"""A signal that wakes everybody who waits just now, and nobody who comes later."""

import asyncio
import contextlib


class Pulse:
    """Check your condition, then `wait` without awaiting in between: no wake-up is missed."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def fire(self) -> None:
        """Wake all who wait."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                if not each.done():  # else it left
                    each.set_result(None)

    async def wait(self) -> None:
        """Return at the next `fire`."""
        woken = asyncio.get_running_loop().create_future()
        self._waiting.append(woken)
        try:
            await woken
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):  # it was woken in the same moment
                self._waiting.remove(woken)
            raise
