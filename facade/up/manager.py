"""What a service manager is told (sd_notify(3)): that we serve, that we still turn, that we stop.

Guarantees: without a manager, and with one that does not listen, nothing happens and nothing is raised; the heartbeat comes from
our own event loop, so it stops when that hangs, and the manager then ends us and starts us again. Does
not say whether all is well: `/readyz` does, and a facade that is not ready must not be restarted.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

import structlog

from facade.clock import Clock

log = structlog.get_logger(__name__)

TELL_SECONDS = 5.0


class ServiceManager:
    """Who started us, if it wants to hear.

    Arguments:
        environ: where it says so: NOTIFY_SOCKET, and WATCHDOG_USEC with WATCHDOG_PID.
        pid: ours.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._beat_seconds = _watched_seconds(environ, pid) / 2  # as sd_watchdog_enabled(3) advises

    async def tell(self, state: str) -> None:
        """Send `state`, such as "READY=1". A manager that is busy is waited for, TELL_SECONDS at most."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.connect(self._address)  # so that a full queue of its can be waited for
                async with asyncio.timeout(TELL_SECONDS):
                    await asyncio.get_running_loop().sock_sendall(sock, state.encode())
            except OSError as error:  # TimeoutError is one
                log.warning("service_manager_not_told", state=state, error=str(error))

    @contextlib.asynccontextmanager
    async def heartbeat(self, clock: Clock) -> AsyncIterator[None]:
        """Say twice as often as the manager wants, within, that we still turn."""
        if not self._beat_seconds:
            yield
            return
        beating = asyncio.create_task(self._beat(clock))
        try:
            yield
        finally:
            beating.cancel()

    async def _beat(self, clock: Clock) -> None:
        while True:
            await self.tell("WATCHDOG=1")
            await clock.sleep(self._beat_seconds)


def _watched_seconds(environ: Mapping[str, str], pid: int) -> float:
    """How long the manager waits for a sign of life; 0 = it does not."""
    usec = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(usec) / 1e6 if meant and usec.isascii() and usec.isdigit() else 0.0
