"""Answers without the HTTP server: to manifests that are at hand and to blobs, wherever they are, asked
for in words that were understood before.

Guarantees: every answer is decided anew, as on the long way (`app.DevicePort`): who asks and whether the
device may still come in, freshness, signature, connection, slots, rates; a blob is sent by the very
`Sender` that sends it there, and refused in the same words; and all of it is written down alike. What is
to be refused at once, and a manifest that is not at hand, is not answered here. Nothing that was begun
here is left to the HTTP server to begin again.
"""

import asyncio
from collections.abc import Awaitable, Iterator

import structlog
from aiohttp import hdrs

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError
from facade.observability.logs import begin_request
from facade.oci.request import PullRequest, Role
from facade.serving.api.answers import Plan, entity, refused, unforeseen
from facade.serving.api.exchange import Books, Record
from facade.serving.api.lane import Lane
from facade.serving.api.peer import Peers
from facade.serving.api.streaming import Sender
from facade.serving.api.understood import Date, Understood, Words
from facade.serving.pulls.answers import ReadyManifest
from facade.serving.pulls.service import PullService, device_key

log = structlog.get_logger(__name__)

MAX_FLEETS = 64
"""For so many fleets the answer to one of them is kept."""


class Shortcut:
    """Implements `lane.Shortcut` for one port."""

    def __init__(
        self,
        *,
        understood: Understood,
        pulls: PullService,
        peers: Peers,
        sender: Sender,
        books: Books,
        clock: Clock,
        ids: Iterator[str],
    ) -> None:
        self._understood = understood
        self._pulls = pulls
        self._peers = peers
        self._sender = sender
        self._books = books
        self._clock = clock
        self._ids = ids
        self._date = Date(clock)

    def answer(self, lane: Lane, asked: bytes) -> bool:
        """Answer `asked`, or begin to, if that can be done at once; whether it was."""
        words = self._understood.find(asked)
        if words is None:
            return False
        record = Record(next(self._ids), self._clock.monotonic(), words.method, pull=words.pull)
        try:
            record.device = device = self._peers.check(lane.transport)
            if words.pull.role is Role.BLOB:
                return self._blob(lane, words, record, device)
            return self._manifest(lane, words, record, device)
        except FacadeError:
            return False  # the long way says so, in full

    def _manifest(self, lane: Lane, words: Words, record: Record, device: Device) -> bool:
        before = words.manifests.get(device.fleet)
        ready = self._pulls.ready(device, words.pull, before and before[0])
        if ready is None:
            return False
        if before is None or before[0] is not ready:
            before = self._prepare(words, device.fleet, ready)
        body = b"" if words.method == hdrs.METH_HEAD else ready.data
        lane.transport.write(b"%b%b%b%b" % (before[1], self._date.now(), words.rest, body))
        record.route, record.status, record.bytes_sent = "manifests", 200, len(body)
        self._books.finished(record)
        lane.answered(closing=words.closing)
        return True

    def _prepare(
        self, words: Words, fleet: str, ready: ReadyManifest
    ) -> tuple[ReadyManifest, bytes]:
        made = ready, words.head(200, entity(words.pull.digest, ready.media_type, len(ready.data)))
        if len(words.manifests) >= MAX_FLEETS:
            words.manifests.clear()
        words.manifests[fleet] = made
        return made

    def _blob(self, lane: Lane, words: Words, record: Record, device: Device) -> bool:
        record.route = "blobs"
        output = LaneOutput(lane, words, self._date)
        ready = self._pulls.ready_blob(device, words.pull)
        if ready is None:
            sending = self._wait_and_send(record, device, words.pull, output)
        else:
            output.plan = _all_of(words.pull, ready.media_type, ready.stream.size)
            sending = self._sender.send_ready(record, device, ready, output)
        lane.carry(self._answer(record, words.pull, sending, output), closing=words.closing)
        return True

    async def _wait_and_send(
        self, record: Record, device: Device, request: PullRequest, output: "LaneOutput"
    ) -> None:
        """As `routes.Routes` does it. Raises what keeps the first byte from being sent."""
        await asyncio.sleep(0)  # as a task from here on (`eager`): what follows may need one
        key, rates = device_key(device), self._pulls.rates
        async with self._pulls.requests.hold(key):
            if rates is not None:
                await rates.request(key)
            answer = await self._pulls.blob(device, request)
            output.plan = _all_of(request, answer.media_type, answer.size)
            await self._sender.blob(record, device, answer, output)

    async def _answer(
        self,
        record: Record,
        request: PullRequest,
        sending: Awaitable[None],
        output: "LaneOutput",
    ) -> None:
        begin_request(record.id)
        try:
            await self._answered(record, request, sending, output)
        finally:
            self._books.finished(record)

    async def _answered(
        self,
        record: Record,
        request: PullRequest,
        sending: Awaitable[None],
        output: "LaneOutput",
    ) -> None:
        try:
            await sending
        except FacadeError as error:
            record.error = error
        except ConnectionError:
            if not output.transport.is_closing():
                output.transport.abort()
            return  # the device has left
        except Exception:
            log.exception("request_failed", path=request.format(), method=record.method)
            record.error = unforeseen()
        else:
            return
        if record.begun:  # no second answer can follow the head
            output.transport.abort()
        else:
            output.refuse(record, record.error)


class LaneOutput:
    """Implements `streaming.Output` on a lane.

    Attributes:
        plan: set before anything is sent.
    """

    plan: Plan

    def __init__(self, lane: Lane, words: Words, date: Date) -> None:
        self.transport: asyncio.Transport = lane.transport
        self._lane = lane
        self._words = words
        self._date = date

    async def begin(self) -> None:
        self.transport.write(self._make_head(self.plan.status, self.plan.headers))

    async def write(self, piece: memoryview) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError("The device has left.")
        self.transport.write(piece)
        await self._lane.drained()

    async def end(self) -> None:
        """Everything was written."""

    def refuse(self, record: Record, error: FacadeError) -> None:
        """Answer with `error`, instead of what was to be sent."""
        made = refused(record, error)
        record.status = made.status
        self.transport.write(self._make_head(made.status, made.headers) + made.body)

    def _make_head(self, status: int, headers: dict[str, str]) -> bytes:
        return self._words.head(status, headers) + self._date.now() + self._words.rest


def _all_of(request: PullRequest, media_type: str, size: int) -> Plan:
    return Plan(200, entity(request.digest, media_type, size), 0, size)
