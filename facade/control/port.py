"""The in-process `ControlPort`: what the serving wing asks of this wing, in one process.

Guarantees: `snapshot` is an attribute read unless something changed since; `report` never blocks: it
puts the event into a bounded queue, which a task of its own writes to the database in batches, one
transaction each; what does not fit is dropped and counted. While the database cannot be used, what is reported waits. A closure's
manifest comes from our store, never from upstream. Does not guarantee that a reported event
survives a kill.
"""

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Protocol

import structlog

from facade.clock import Clock
from facade.control.connections.store import ConnectionSnapshot, ConnectionStore
from facade.control.pulls import PullRecords
from facade.errors import FacadeError, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Authorizer, Connection, Scope
from facade.wings import (
    ConnectionUsed,
    ControlSnapshot,
    Event,
    IntegrityFailed,
    Pulled,
    Revocations,
)

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.02
"""How long a report waits for company at least. Workers bring theirs all at once (`link.reporter`)."""
SPACING_SECONDS = 0.5
"""Between two writes: a transaction costs more than its rows. Workers come once a second, at the same moment."""
FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 15.0
"""Between two tries while the database cannot be used."""
MAX_BATCH = 1000


class KeptManifests(Protocol):
    """`control.catalog.manifests.ClosureManifests`."""

    async def get(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None: ...


class DenyList(Protocol):
    """Who is revoked; an immutable value, a new one after each change."""

    def revocations(self) -> Revocations: ...


class ReportObserver(Protocol):
    """Counts what was dropped."""

    def report_dropped(self) -> None: ...


class NullReportObserver:
    """Counts nothing."""

    def report_dropped(self) -> None:
        pass


class InProcessControlPort:
    """Implements `facade.wings.ControlPort`. `start` and `close` frame its use.

    Arguments:
        max_events: events that wait to be written, at most.
    """

    def __init__(
        self,
        *,
        connections: ConnectionStore,
        broker: Authorizer,
        manifests: KeptManifests,
        deny_list: DenyList,
        pulls: PullRecords,
        clock: Clock,
        observer: ReportObserver | None = None,
        max_events: int,
    ) -> None:
        self._connections = connections
        self._broker = broker
        self._manifests = manifests
        self._deny_list = deny_list
        self._pulls = pulls
        self._clock = clock
        self._observer = observer or NullReportObserver()
        self._max_events = max_events
        self._events: deque[Event] = deque()
        self._reported = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._seen: tuple[ConnectionSnapshot, Revocations] | None = None
        self._snapshot = ControlSnapshot()

    def start(self) -> None:
        """Begin writing reports. Needs a running event loop."""
        self._writer = asyncio.create_task(self._write_on(), name="control reports")

    async def close(self) -> None:
        """Write what waits, and stop."""
        if self._writer is not None:
            async with self._writing:  # a batch that is being written is neither lost nor doubled
                self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None
        if not await self._flush_all():
            self._dropped(self._events)
            self._events.clear()

    def silent_seconds(self) -> float:
        return 0.0  # it is this process

    def snapshot(self) -> ControlSnapshot:
        now = (self._connections.snapshot(), self._deny_list.revocations())
        if self._seen is None or now[0] is not self._seen[0] or now[1] is not self._seen[1]:
            self._snapshot = ControlSnapshot(
                generation=self._snapshot.generation + 1,
                connections=now[0].by_host,
                revocations=now[1],
            )
            self._seen = now
        return self._snapshot

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        return await self._broker.authorization(
            connection, scope, challenge=challenge, refused=refused
        )

    async def closure_manifest(
        self, registry: RegistryHost, repository: Repository, digest: Digest
    ) -> bytes | None:
        return await self._manifests.get(registry, repository, digest)

    def report(self, event: Event) -> None:
        if len(self._events) >= self._max_events:
            self._observer.report_dropped()
            return
        self._events.append(event)
        self._reported.set()

    async def _write_on(self) -> None:
        pause, free = FIRST_PAUSE_SECONDS, self._clock.monotonic()
        while True:
            await self._reported.wait()  # so that a facade that nobody asks does nothing
            await self._clock.sleep(max(GATHER_SECONDS, free - self._clock.monotonic()))
            self._reported.clear()
            free = self._clock.monotonic() + SPACING_SECONDS
            while not await self._flush_all():
                await self._clock.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            pause = FIRST_PAUSE_SECONDS

    async def _flush_all(self) -> bool:
        """Write what waits; False: the database cannot be used just now."""
        while self._events:
            if not await self._flush():
                return False
        return True

    async def _flush(self) -> bool:
        """Write one batch; False: the database cannot be used just now, and it waits for the next
        time. One that is refused is dropped, so that the next has its turn.
        """
        async with self._writing:
            batch = [self._events.popleft() for _ in range(min(MAX_BATCH, len(self._events)))]
            try:
                await self._write(batch)
            except Unavailable as error:
                self._events.extendleft(reversed(batch))
                log.warning("reports_delayed", count=len(self._events), error=error.message)
                return False
            except FacadeError as error:
                self._dropped(batch)
                log.warning("reports_dropped", count=len(batch), error=error.message)
            except Exception:
                # A defect of ours with one batch must not end the records of all later pulls.
                self._dropped(batch)
                log.exception("reports_dropped", count=len(batch))
        return True

    async def _write(self, batch: list[Event]) -> None:
        """Write a batch in one transaction: all of it, or nothing."""
        pulls = [event for event in batch if isinstance(event, Pulled)]
        failures = [event for event in batch if isinstance(event, IntegrityFailed)]
        uses = [event for event in batch if isinstance(event, ConnectionUsed)]
        async with self._connections.noting(uses) as note:
            await self._pulls.add(pulls, failures, also=note)

    def _dropped(self, batch: Collection[Event]) -> None:
        for _ in batch:
            self._observer.report_dropped()
