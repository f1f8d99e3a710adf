"""`ControlPort` served on a Unix socket, for the workers of this process.

Guarantees: a feed begins with the current snapshot; a new one follows as soon as a change is told, but
`REST_SECONDS` after the one before (within `BEAT_SECONDS` when nobody tells), and a beat every `BEAT_SECONDS` says that the last one still holds. A batch of reports that is sent again, since its
answer was lost, counts once (while this process lives). No secret leaves but in an answer to
`/authorization`. Who may connect is decided at the socket (`unix`).
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from facade.clock import Clock, on_the_beat
from facade.link.answers import Intake, answering
from facade.link.calls import OCTETS
from facade.link.codec import (
    authorization_out,
    authorization_request_in,
    manifest_request_in,
)
from facade.link.events_codec import event_in
from facade.link.feed_codec import Frame, Position, frame_out, position_out
from facade.link.strict import Fields, Malformed, dump, load
from facade.link.talk import Listening
from facade.target import MAX_MANIFEST_BYTES
from facade.wings import ControlPort, ControlSnapshot

log = structlog.get_logger(__name__)

REST_SECONDS = 0.2
"""Between two snapshots: a long deny list that changes a thousand times in a row is not sent a thousand times."""
BEAT_SECONDS = 1.0
MAX_SENDERS = 1024
"""Workers whose last batch is remembered: the living ones, and some that were replaced."""


def control_app(
    port: ControlPort,
    *,
    clock: Clock,
    on_change: Callable[[Callable[[], None]], None] = lambda _: None,
    middlewares: Sequence[Middleware] = (),
    intake: Intake | None = None,
) -> web.Application:
    """The application that `control_client.SocketControlPort` speaks to.

    Arguments:
        on_change: given what to call whenever `port.snapshot()` may have changed.
        middlewares: around each request, for traces.
        intake: for all requests together; None = `answers.MAX_INTAKE_BYTES`.
    """
    side, intake = _ControlSide(port, clock), intake or Intake()
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/feed", side.feed)
    app.router.add_post("/position", answering(side.position, intake))
    app.router.add_post("/authorization", answering(side.authorization, intake))
    app.router.add_post("/closure-manifest", answering(side.closure_manifest, intake))
    reports = Listening(side.report, intake)
    app.router.add_post("/reports", reports.handle)
    app.cleanup_ctx.append(side.beating)

    async def end(_: web.Application) -> None:
        side.end()
        reports.end()

    app.on_shutdown.append(end)
    on_change(side.tell)
    return app


class _ControlSide:
    def __init__(self, port: ControlPort, clock: Clock) -> None:
        self._port = port
        self._clock = clock
        self._epoch = secrets.token_hex(8)
        self._encoded: tuple[ControlSnapshot, bytes] | None = None
        self._encoding = asyncio.Lock()
        self._news = asyncio.Event()
        self._ending = False
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def tell(self) -> None:
        """Have all feeds send what is current."""
        self._news.set()
        self._news = asyncio.Event()

    async def beating(self, app: web.Application) -> AsyncIterator[None]:
        """Have them do so every `BEAT_SECONDS` while the application runs."""
        beat = asyncio.create_task(self._beat(), name="control beat")
        yield
        beat.cancel()
        await asyncio.gather(beat, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await on_the_beat(self._clock, BEAT_SECONDS)
            self.tell()

    def end(self) -> None:
        """Let the feeds end."""
        self._ending = True
        self.tell()

    async def feed(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = OCTETS
        await response.prepare(request)
        # A worker that ends, or is killed, goes in the middle of a write: the feed's usual end.
        with suppress(ConnectionError):
            await self._feed(response)
        return response

    async def _feed(self, response: web.StreamResponse) -> None:
        held: Position | None = None
        beat = b""
        while not self._ending:
            news = self._news  # before the look: what changes while it is sent is sent next
            snapshot = self._port.snapshot()
            position = self._position(snapshot)
            if position != held:
                try:
                    await response.write(await self._frame(snapshot))
                except (ValueError, TypeError) as error:
                    # Without it the workers' deny list grows old, which readiness tells.
                    log.error("snapshot_not_sent", error=str(error))
                    break
                held, beat = position, frame_out(Frame(position))
                await self._clock.sleep(REST_SECONDS)
            else:
                await response.write(beat)
            await news.wait()

    def _position(self, snapshot: ControlSnapshot) -> Position:
        return Position(self._epoch, snapshot.generation)

    async def _frame(self, snapshot: ControlSnapshot) -> bytes:
        """Encoded once for all workers, in a thread: a long deny list takes a while."""
        async with self._encoding:
            if self._encoded is None or self._encoded[0] is not snapshot:
                frame = Frame(self._position(snapshot), snapshot)
                self._encoded = (snapshot, await asyncio.to_thread(frame_out, frame))
            return self._encoded[1]

    async def position(self, body: bytes) -> bytes:
        """Which snapshot is current."""
        return position_out(self._position(self._port.snapshot()))

    async def authorization(self, body: bytes) -> bytes:
        connection, scope, challenge, refused = authorization_request_in(load(body))
        authorization = await self._port.authorization(
            connection, scope, challenge=challenge, refused=refused
        )
        return dump(authorization_out(authorization))

    async def closure_manifest(self, body: bytes) -> bytes:
        """One byte that says whether it is kept, and the manifest."""
        data = await self._port.closure_manifest(*manifest_request_in(load(body)))
        if data is None:
            return b"0"
        if len(data) > MAX_MANIFEST_BYTES:
            log.error("kept_manifest_too_long", bytes=len(data))
            return b"0"
        return b"1" + data

    async def report(self, body: bytes) -> bytes:
        """A batch."""
        fields = Fields(load(body), "report")
        sender, number = fields.text("sender"), fields.integer("number")
        events = [event_in(each) for each in fields.items("events")]
        fields.done()
        if len(sender) > 64:
            raise Malformed("report: sender is too long")
        if number > self._numbers.get(sender, 0):
            self._numbers[sender] = number
            self._numbers.move_to_end(sender)
            while len(self._numbers) > MAX_SENDERS:
                self._numbers.popitem(last=False)
            for event in events:
                self._port.report(event)
        return b""
