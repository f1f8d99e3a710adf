"""The worker's end of the snapshot feed.

Guarantees: `snapshot` is the last one that came whole, and its generation changes exactly when its
content does, also over a restart of the control side; after `SILENCE_SECONDS` without a frame the
control side counts as away and `lost` is called; it is looked for again with growing pauses, for
ever. A frame that cannot be read changes nothing.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import aiohttp
import structlog

from facade.clock import Clock
from facade.link.calls import Away, Caller
from facade.link.feed_codec import LENGTH_BYTES, Frame, Position, frame_in, frame_out, length_in
from facade.link.strict import Malformed
from facade.wings import ControlSnapshot

log = structlog.get_logger(__name__)

SILENCE_SECONDS = 5.0
"""Five beats. A machine under load delays one or two."""
FRAME_SECONDS = 30.0
"""For one whole frame, once it began."""
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0
"""A stat and a refused connect cost nothing, so that who comes back is found at once."""
_IN_THREAD_BYTES = 256 * 1024
"""Longer frames are read in a thread: the loop serves devices meanwhile."""


class Follower:
    """Follows the feed while `run` runs.

    Arguments:
        lost: called when the control side is away from now on.
    """

    def __init__(self, caller: Caller, clock: Clock, *, lost: Callable[[], None]) -> None:
        self._caller = caller
        self._clock = clock
        self._lost = lost
        self.snapshot = ControlSnapshot()
        self.heard_at = clock.monotonic()
        self.up = asyncio.Event()
        """Set while frames come."""
        self._position: Position | None = None
        self._beat: bytes | None = None
        """The frame that says that what is held is current: it comes every second, and need not be read."""
        self._taken = asyncio.Event()
        self._silence_told = False

    async def run(self) -> None:
        """Until cancelled."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            before = self.heard_at
            try:
                await self._follow()
            except Away as error:
                self._tell_silence(error)
            except Exception:
                # A defect of ours with one frame must not end the deny list's updates for good.
                log.exception("control_feed_failed")
            finally:
                if self.up.is_set():
                    self.up.clear()
                    self._lost()
            heard = self.heard_at != before
            pause = FIRST_PAUSE_SECONDS if heard else min(2 * pause, MAX_PAUSE_SECONDS)
            await self._clock.sleep(pause)

    async def reached(self, wanted: Position) -> None:
        """Return once what is held is at least as new as `wanted`, of the same process."""
        while (
            self._position is None
            or self._position.epoch != wanted.epoch
            or self._position.generation < wanted.generation
        ):
            self._taken.clear()
            await self._taken.wait()

    async def _follow(self) -> None:
        """Until it ends. Raises Away."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS
        )
        self._position, self._beat = None, None
        try:
            async with self._caller.session.get(
                "/feed", timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise Malformed(f"status {response.status}")
                while True:
                    await self._take(await self._read(response.content))
        except TimeoutError as error:
            raise self._caller.away("it is silent") from error
        except Malformed as error:
            raise self._caller.away(f"its snapshot cannot be read: {error}") from error
        except (aiohttp.ClientError, OSError, EOFError) as error:
            raise self._caller.away("the connection broke") from error

    async def _read(self, content: aiohttp.StreamReader) -> bytes:
        try:
            length = length_in(await content.readexactly(LENGTH_BYTES))
            body = content.read_nowait(length)
            if len(body) < length:
                async with asyncio.timeout(FRAME_SECONDS):
                    body += await content.readexactly(length - len(body))
        except RuntimeError as error:  # aiohttp's, when its connection went between reads
            raise EOFError from error
        return body

    async def _take(self, body: bytes) -> None:
        if body != self._beat:
            if len(body) > _IN_THREAD_BYTES:
                frame = await asyncio.to_thread(frame_in, body)
            else:
                frame = frame_in(body)
            if frame.snapshot is None and frame.position != self._position:
                raise Malformed("a snapshot is missing")
            self._hold(frame)
        self.heard_at = self._clock.monotonic()
        if not self.up.is_set():
            self.up.set()
            if self._silence_told:
                log.info("control_back")
                self._silence_told = False

    def _hold(self, frame: Frame) -> None:
        self._position = frame.position
        self._beat = frame_out(Frame(frame.position))[LENGTH_BYTES:]
        got, held = frame.snapshot, self.snapshot
        if got is not None and (got.connections, got.revocations) != (
            held.connections,
            held.revocations,
        ):
            self.snapshot = replace(got, generation=held.generation + 1)
        self._taken.set()

    def _tell_silence(self, error: Away) -> None:
        """Once per silence."""
        if not self._silence_told:
            log.warning("control_away", error=error.message)
            self._silence_told = True
