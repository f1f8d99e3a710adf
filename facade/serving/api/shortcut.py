"""Answers without the HTTP server: to what is at hand, asked for in words that were understood before.

Guarantees: every answer is decided anew, as on the long way (`app.DevicePort`): who asks and whether the
device may still come in, freshness, signature, connection, slots; a blob is sent by the very `Sender`
that sends it there; and all of it is written down alike. Whatever is not at hand, or is to be refused,
is not answered here.
"""

import asyncio
from collections.abc import Iterator

import structlog
from aiohttp import hdrs

from facade.clock import Clock
from facade.device import Device
from facade.errors import FacadeError, Unavailable
from facade.observability.logs import begin_request
from facade.oci.request import Role
from facade.reasons import Reason
from facade.serving.api.answers import Plan, entity
from facade.serving.api.exchange import Books, Record
from facade.serving.api.lane import Lane
from facade.serving.api.peer import Peers
from facade.serving.api.streaming import Sender
from facade.serving.api.understood import Date, Understood, Words
from facade.serving.pulls.answers import ReadyBlob, ReadyManifest
from facade.serving.pulls.service import PullService

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
        made = ready, words.head(entity(words.pull.digest, ready.media_type, len(ready.data)))
        if len(words.manifests) >= MAX_FLEETS:
            words.manifests.clear()
        words.manifests[fleet] = made
        return made

    def _blob(self, lane: Lane, words: Words, record: Record, device: Device) -> bool:
        ready = self._pulls.ready_blob(device, words.pull)
        if ready is None:
            return False
        record.route = "blobs"
        size = ready.stream.size
        plan = Plan(200, entity(words.pull.digest, ready.media_type, size), 0, size)
        head = words.head(plan.headers) + self._date.now() + words.rest
        sending = self._send(record, device, ready, LaneOutput(lane, plan, head))
        lane.carry(sending, closing=words.closing)
        return True

    async def _send(
        self, record: Record, device: Device, ready: ReadyBlob, output: "LaneOutput"
    ) -> None:
        """Send a blob; whatever goes wrong cuts the connection, and is written down."""
        begin_request(record.id)
        try:
            await self._sender.send_ready(record, device, ready, output)
        except FacadeError as error:
            record.error = error
            output.transport.abort()
        except ConnectionError:
            pass  # the device has left
        except Exception:
            log.exception("request_failed", path=str(ready.request), method=record.method)
            record.error = Unavailable("Something went wrong.", reason=Reason.INTERNAL)
            output.transport.abort()
        finally:
            self._books.finished(record)


class LaneOutput:
    """Implements `streaming.Output` on a lane.

    Arguments:
        head: whole, as it goes out.
    """

    def __init__(self, lane: Lane, plan: Plan, head: bytes) -> None:
        self.plan = plan
        self.transport: asyncio.Transport = lane.transport
        self._lane = lane
        self._head = head

    async def begin(self) -> None:
        self.transport.write(self._head)

    async def write(self, piece: memoryview) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError("The device has left.")
        self.transport.write(piece)
        await self._lane.drained()

    async def end(self) -> None:
        """Everything was written."""
