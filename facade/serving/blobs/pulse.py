"""A signal that wakes everybody who waits just now, and nobody who comes later."""

import asyncio


class Pulse:
    """Check your condition, then `wait` without awaiting in between: no wake-up is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def fire(self) -> None:
        """Wake all who wait."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self) -> None:
        """Return at the next `fire`."""
        await self._event.wait()
