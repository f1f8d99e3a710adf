"""Watches what is being sent: a revoked device's or a withdrawn digest's transfer is cut.

Guarantees: within one round (`INTERVAL_SECONDS`) of a new deny list, connection snapshot or signed
view, and of a certificate's end, every running stream has been judged again, also one that
waits for the registry or for a device that does not read. Does not judge new requests (they are
judged when they come) nor how fast a device reads (`identity.limits` does).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from facade.clock import Clock, on_the_beat
from facade.device import Device
from facade.errors import Denied, FacadeError, Integrity
from facade.oci.request import PullRequest
from facade.reasons import Reason

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 1.0
"""Revoking cuts open transfers within 5 s (trust.md): a round a second leaves room."""

UNDECIDED_SECONDS = 3.0
"""How long a stream goes on whose signed closure cannot be followed under a new view. Its digest may
have been withdrawn: new requests get 503 then, and a running one is not better off (trust.md)."""

Judge = Callable[[Device, PullRequest], Awaitable[None]]
"""Raises Denied when this device's fleet may not have this (any more); may take its time."""
Generation = Callable[[], object]
"""A value that changes whenever a judgement might; may raise FacadeError while there is none."""


@dataclass(slots=True, eq=False)
class Watched:
    """One running stream.

    Arguments:
        check: judges the device's identity at once; raises Denied.
        stop: ends the stream at once, from outside.
        generation: at the last judgement.
        ended_by: why it was cut, for whoever was sending.
    """

    device: Device
    request: PullRequest
    check: Callable[[], object]
    stop: Callable[[], None]
    generation: object = None
    ended_by: FacadeError | None = None
    judging: bool = False
    undecided_since: float | None = None

    def cut(self, error: FacadeError) -> None:
        """End it because of `error`; the first reason stays."""
        if self.ended_by is None:
            self.ended_by = error
            self.stop()


class StreamGuard:
    """Judges running streams again, once a second; `run()` is a task of its own.

    Arguments:
        judge: as for a new request.
        generation: when it is what it was at the last judgement, `judge` is not asked.
    """

    def __init__(self, *, judge: Judge, generation: Generation, clock: Clock) -> None:
        self._judge = judge
        self._generation = generation
        self._clock = clock
        self._watched: set[Watched] = set()
        self._busy = asyncio.Event()
        self._judgements: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """How many streams are watched."""
        return len(self._watched)

    def watch(
        self,
        device: Device,
        request: PullRequest,
        check: Callable[[], object],
        stop: Callable[[], None],
    ) -> Watched:
        """Watch a stream that was just authorised, until `forget`."""
        watched = Watched(device, request, check, stop, self._now())
        self._watched.add(watched)
        self._busy.set()
        return watched

    def forget(self, watched: Watched) -> None:
        """The stream has ended."""
        self._watched.discard(watched)

    async def run(self) -> None:
        """Judge in rounds, while there is a stream, until cancelled."""
        try:
            while True:
                if not self._watched:
                    self._busy.clear()
                    await self._busy.wait()
                await on_the_beat(self._clock, INTERVAL_SECONDS)
                self.round()
        finally:
            for task in self._judgements:
                task.cancel()

    def round(self) -> None:
        """One round over all streams. Judgements that take time end by themselves."""
        generation = self._now()
        for watched in tuple(self._watched):
            try:
                watched.check()
            except FacadeError as error:
                watched.cut(error)
            except Exception:  # one broken stream must not end the watch over the others
                log.exception("stream_check_failed", device=str(watched.device))
            else:
                if watched.generation != generation and not watched.judging:
                    watched.judging = True
                    task = asyncio.create_task(self._judge_again(watched, generation))
                    self._judgements.add(task)
                    task.add_done_callback(self._judgements.discard)

    def _now(self) -> object:
        try:
            return self._generation()
        except FacadeError:  # no valid view: what was judged under one is judged again
            return None

    async def _judge_again(self, watched: Watched, generation: object) -> None:
        try:
            await self._judge(watched.device, watched.request)
        except (Denied, Integrity) as error:
            watched.cut(error)
        except FacadeError as error:
            # Undecided (metadata expired, a manifest missing): it was allowed when it began, and
            # is asked about again in the next round.
            log.info("stream_judgement_open", device=str(watched.device), reason=error.reason)
            self._undecided(watched, error)
        except Exception:  # one broken stream must not end the watch over the others
            log.exception("stream_judgement_failed", device=str(watched.device))
        else:
            watched.generation, watched.undecided_since = generation, None
        finally:
            watched.judging = False

    def _undecided(self, watched: Watched, error: FacadeError) -> None:
        """Not for ever where the metadata is good and only the closure cannot be followed."""
        if error.reason is not Reason.CLOSURE_INCOMPLETE:
            watched.undecided_since = None
        elif watched.undecided_since is None:
            watched.undecided_since = self._clock.monotonic()
        elif self._clock.monotonic() - watched.undecided_since >= UNDECIDED_SECONDS:
            watched.cut(error)
