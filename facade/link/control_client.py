"""`ControlPort` in a worker: what the parent's `control_server` answers.

Guarantees: `snapshot` is an attribute read; with the control side away the last one serves, and
`silent_seconds` tells since when nobody confirmed it. Calls fail closed, with `Unavailable`: at once
when the connection breaks, within `follower.SILENCE_SECONDS` when the control side hangs, within
`PATIENCE_SECONDS` while it is known to be away, so that a restart is not noticed. `report` never blocks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from aiohttp import TraceConfig

from facade.clock import Clock
from facade.link.calls import Caller
from facade.link.codec import (
    authorization_in,
    authorization_request_out,
    manifest_request_out,
)
from facade.link.feed_codec import position_in
from facade.link.follower import Follower
from facade.link.reporter import Reporter, ReportObserver
from facade.link.strict import Malformed, dump, load
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.target import MAX_MANIFEST_BYTES
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, Scope
from facade.wings import ControlSnapshot, Event

T = TypeVar("T")

START_SECONDS = 15.0
"""For the first snapshot."""
PATIENCE_SECONDS = 2.0
AUTHORIZATION_SECONDS = 120.0
"""The last resort: the exchange behind it has its own deadlines, and so has who asks."""
MANIFEST_SECONDS = 20.0
SMALL_SECONDS = 5.0
MAX_AUTHORIZATION_BYTES = 512 * 1024
"""Tokens are some KiB; what a token service may send is bounded to 64 KiB, six times that in JSON."""


class SocketControlPort:
    """Implements `facade.wings.ControlPort`. `start` and `close` frame its use.

    Arguments:
        path: the parent's socket.
        observer: counts reports that are dropped.
        watchers: aiohttp's own hooks around each request, for traces.

    Raises Invalid for a path that is too long.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        observer: ReportObserver,
        watchers: Sequence[TraceConfig] = (),
    ) -> None:
        self._caller = Caller(
            path, "The control side of this facade", Reason.CONTROL_UNAVAILABLE, watchers=watchers
        )
        self._clock = clock
        self._follower = Follower(self._caller, clock, lost=self._caller.give_up)
        self._reporter = Reporter(self._caller, clock, observer)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, *, within: float = START_SECONDS) -> None:
        """Wait for the first snapshot. Raises Unavailable when none comes `within` these seconds."""
        self._tasks = [
            asyncio.create_task(self._follower.run(), name="control feed"),
            asyncio.create_task(self._reporter.run(), name="control reports"),
        ]
        try:
            await self._up(within)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Send the reports that wait, if that is quickly done, and stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._reporter.finish()
        await self._caller.close()

    def snapshot(self) -> ControlSnapshot:
        return self._follower.snapshot

    def silent_seconds(self) -> float:
        """How long ago the control side said that the snapshot is current."""
        return max(0.0, self._clock.monotonic() - self._follower.heard_at)

    async def refresh(self) -> None:
        """Return once the snapshot is at least as new as the control side's at the call.

        Raises Unavailable.
        """
        data = await self._ask("/position", b"", limit=1024, seconds=SMALL_SECONDS)
        wanted = self._read(lambda: position_in(data))
        await self._within(SMALL_SECONDS, lambda: self._follower.reached(wanted))

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        body = dump(authorization_request_out(connection, scope, challenge, refused))
        data = await self._ask(
            "/authorization", body, limit=MAX_AUTHORIZATION_BYTES, seconds=AUTHORIZATION_SECONDS
        )
        return self._read(lambda: authorization_in(load(data)))

    async def closure_manifest(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        body = dump(manifest_request_out(registry, repository, digest))
        data = await self._ask(
            "/closure-manifest", body, limit=MAX_MANIFEST_BYTES + 1, seconds=MANIFEST_SECONDS
        )
        if data[:1] not in (b"0", b"1"):
            raise self._caller.away("its answer cannot be read")
        return data[1:] if data.startswith(b"1") else None

    def report(self, event: Event) -> None:
        self._reporter.report(event)

    async def _ask(self, route: str, body: bytes, *, limit: int, seconds: float) -> bytes:
        if not self._follower.up.is_set():
            await self._up(PATIENCE_SECONDS)
        return await self._caller.call("POST", route, body, limit=limit, seconds=seconds)

    async def _up(self, seconds: float) -> None:
        await self._within(seconds, self._follower.up.wait)

    async def _within(self, seconds: float, wait: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await wait()
        except TimeoutError as error:
            raise self._caller.away(f"silent for {self.silent_seconds():.0f} s") from error

    def _read(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except Malformed as error:
            raise self._caller.away(f"its answer cannot be read: {error}") from error
