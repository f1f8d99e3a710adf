"""A worker's reports on their way to the control side.

Guarantees: `report` never blocks: what does not fit into the queue is dropped and counted; order is
kept; a batch whose answer was lost is sent again under its number, which the control side counts
once. Does not guarantee that a reported event survives a kill of either side, nor that it counts only
once when the control side is killed between taking a batch and saying so.
"""

import asyncio
import secrets
from collections import deque
from contextlib import suppress
from typing import Protocol

import structlog

from facade.clock import Clock, on_the_beat
from facade.errors import FacadeError
from facade.link.calls import Away, Caller
from facade.link.events_codec import event_out
from facade.link.strict import dump
from facade.link.talk import Talk
from facade.wings import Event

log = structlog.get_logger(__name__)

MAX_EVENTS = 20_000
"""Of which a worker with a processor of its own makes 16,000 in `FLUSH_SECONDS`."""
MAX_BATCH = 500
MAX_BATCH_BYTES = 512 * 1024
MAX_EVENT_BYTES = 32 * 1024
FLUSH_SECONDS = 1.0
"""How long a report waits at most for company: all workers send theirs on the beat, so that the control side
writes them together, and both are awake then anyway."""
SEND_SECONDS = 15.0
MAX_PAUSE_SECONDS = 5.0
LAST_SECONDS = 2.0
"""For what is left at the end."""


class ReportObserver(Protocol):
    """Counts what was dropped."""

    def report_dropped(self) -> None: ...


class Reporter:
    """Sends in the background while `run` runs."""

    def __init__(self, caller: Caller, clock: Clock, observer: ReportObserver) -> None:
        self._talk = Talk(caller, "/reports")
        self._clock = clock
        self._observer = observer
        self._events: deque[Event] = deque()
        self._reported = asyncio.Event()
        self._sender = secrets.token_hex(8)
        self._number = 0
        self._batch: list[bytes] = []

    def report(self, event: Event) -> None:
        """Take note."""
        if len(self._events) >= MAX_EVENTS:
            self._observer.report_dropped()
        else:
            self._events.append(event)
            self._reported.set()

    async def run(self) -> None:
        """Until cancelled."""
        pause = FLUSH_SECONDS
        while True:
            await self._reported.wait()  # so that a worker that nobody asks does nothing
            await on_the_beat(self._clock, pause)
            self._reported.clear()
            try:
                await self._flush()
                pause = FLUSH_SECONDS
            except Away:  # the follower has said it
                self._reported.set()
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
            except Exception:
                # A defect of ours with one batch must not end the reports of all later pulls.
                log.exception("reports_dropped", count=len(self._batch))
                self._drop()

    async def finish(self) -> None:
        """Send what is left, if that is quickly done. Not while `run` runs."""
        with suppress(Away, TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self._flush()
        self._talk.close()
        for _ in range(len(self._batch) + len(self._events)):
            self._observer.report_dropped()

    async def _flush(self) -> None:
        """Send all. Raises Away, keeping the batch."""
        while self._batch or self._events:
            if not self._batch:
                self._batch = self._next()
                self._number += 1
            try:
                await self._talk.say(self._body(), seconds=SEND_SECONDS)
            except Away:
                raise
            except FacadeError as error:
                log.error("reports_dropped", count=len(self._batch), error=error.message)
                self._drop()
            self._batch = []

    def _drop(self) -> None:
        for _ in self._batch:
            self._observer.report_dropped()
        self._batch = []

    def _next(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        while self._events and len(batch) < MAX_BATCH and size < MAX_BATCH_BYTES:
            data = _encoded(self._events.popleft())
            if data is None:
                self._observer.report_dropped()
                continue
            batch.append(data)
            size += len(data)
        return batch

    def _body(self) -> bytes:
        head = b'{"sender":"%s","number":%d,"events":[' % (self._sender.encode(), self._number)
        return head + b",".join(self._batch) + b"]}"


def _encoded(event: Event) -> bytes | None:
    """None when it cannot be sent, which would hold up all that wait behind it."""
    try:
        data = dump(event_out(event))
    except (ValueError, TypeError) as error:  # a time that is no number
        log.error("report_dropped", event_type=type(event).__name__, error=str(error))
        return None
    return data if len(data) <= MAX_EVENT_BYTES else None
