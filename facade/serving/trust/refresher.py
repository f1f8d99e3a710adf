"""When metadata is refreshed, and which view is in use.

Guarantees: the view is swapped in one assignment, so every reader sees one consistent state;
refreshes run one at a time in a thread; whoever asks for a refresh gets one that started after
the asking; a refresh that fails leaves the last view in use (each role's expiry is checked at
every decision). Does not decide what may be served: `decision` does.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from facade.clock import Clock
from facade.errors import FacadeError, Unavailable
from facade.reasons import Reason
from facade.serving.trust.view import RETRY_SECONDS, SignedView

log = structlog.get_logger(__name__)

FAILED_RETRY_SECONDS = 5.0
"""How soon a failed refresh is tried again at first; doubles up to the normal interval."""

Subscriber = Callable[[SignedView], None]


class Views(Protocol):
    """What makes views: `verifier.Verifier`. Blocking calls, except `check_clock`."""

    def refresh(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        """Bring metadata up to date and verify it. Raises Unavailable."""
        ...

    def persisted(self, previous: SignedView | None, fleets: Iterable[str]) -> SignedView:
        """A view of what earlier refreshes left. Raises Unavailable."""
        ...

    def check_clock(self) -> float:
        """The present time, Unix seconds. Raises Unavailable (CLOCK_SET_BACK). Never blocks."""
        ...


class TrustObserver(Protocol):
    """Who counts."""

    def refreshed(self, view: SignedView) -> None:
        """New signed metadata is in use."""
        ...

    def refresh_failed(self, reason: Reason | str) -> None:
        """A refresh failed; the old view stays while it is fresh."""
        ...


class NullTrustObserver:
    """Nobody counts."""

    def refreshed(self, view: SignedView) -> None: ...

    def refresh_failed(self, reason: Reason | str) -> None: ...


@dataclass(frozen=True, slots=True)
class TrustStatus:
    """For readiness, metrics and `facade trust status`.

    Arguments:
        ready: whether anything may be served now.
        reason, message: why not, or why only just (a failed refresh with a view still valid).
        seconds_to_expiry: by role, negative when expired.
        refreshed_at: when the view in use was verified, Unix seconds; None = never.
    """

    ready: bool
    reason: Reason | None = None
    message: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)
    seconds_to_expiry: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    refreshed_at: float | None = None


class Refresher:
    """Keeps the view.

    Arguments:
        refresh_seconds: between refreshes that nobody asked for.
        fleets: to load from the start; others are loaded when a device asks.
    """

    def __init__(
        self,
        views: Views,
        *,
        clock: Clock,
        refresh_seconds: float = 30.0,
        fleets: Iterable[str] = (),
        observer: TrustObserver | None = None,
    ) -> None:
        self._views = views
        self._clock = clock
        self._interval = refresh_seconds
        self._wanted = set(fleets)
        self._observer = observer or NullTrustObserver()
        self._view: SignedView | None = None
        self._refreshed_at: float | None = None
        self._error: FacadeError | None = None
        self._failures = 0
        self._running = asyncio.Lock()
        self._queued: asyncio.Task[FacadeError | None] | None = None
        self._runs: set[asyncio.Task[FacadeError | None]] = set()
        self._timer: asyncio.Task[None] | None = None
        self._asked: dict[str, float] = {}
        self._subscribers: list[Subscriber] = []

    async def start(self) -> None:
        """Load what there is and refresh from now on. A failure shows in `status`, not here."""
        with contextlib.suppress(Unavailable):
            await self.refresh()
        self._timer = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """End the timer; a refresh that runs in a thread is waited for."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)
        await asyncio.gather(*self._runs, return_exceptions=True)

    def view(self) -> SignedView:
        """The view in use. Raises Unavailable (METADATA_UNAVAILABLE, CLOCK_SET_BACK).

        Its freshness is for the caller to check, with `SignedView.check_fresh`.
        """
        self._views.check_clock()
        if self._view is None:
            raise _no_view()
        return self._view

    async def refresh(self) -> None:
        """Refresh now; return when a refresh that started after this call is done.

        Raises Unavailable when it failed; the last view then stays in use.
        """
        if self._queued is None:
            self._queued = asyncio.create_task(self._run())
            self._runs.add(self._queued)
            self._queued.add_done_callback(self._runs.discard)
        error = await asyncio.shield(self._queued)
        if error is not None:
            raise Unavailable(
                error.message, reason=error.reason, retry_after=error.retry_after
            ) from error

    async def fleet(self, fleet: str) -> None:
        """Return when the fleet's role is loaded, has failed, or cannot be had just now.

        The view tells which. Nothing is asked of the source for a fleet that nobody delegated
        to, or again and again for one that failed: the timer does that.
        """
        view = self._view
        if view is None or fleet in view.fleets or fleet in view.failed:
            return
        now = self._clock.monotonic()
        if fleet not in view.known_fleets or now < self._asked.get(fleet, now):
            return
        self._wanted.add(fleet)
        with contextlib.suppress(Unavailable):
            await self.refresh()
        self._asked[fleet] = now + FAILED_RETRY_SECONDS

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber(view)` after every swap, until the result is called."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def status(self) -> TrustStatus:
        """How things stand now."""
        now = self._clock.time()
        error = self._error
        view = self._view
        try:
            self.view().check_fresh(None, now)
            ready = True
        except Unavailable as refusal:
            ready = False
            error = refusal if view is not None or error is None else error
        return TrustStatus(
            ready=ready,
            reason=error.reason if error else None,
            message=error.message if error else "",
            versions=view.versions if view else {},
            seconds_to_expiry={role: at - now for role, at in view.expires.items()} if view else {},
            problems=view.problems if view else (),
            refreshed_at=self._refreshed_at,
        )

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(self._delay())
            try:
                await self.refresh()
            except Unavailable:
                continue  # told by _run, and in status
            except Exception:  # a defect must not end refreshing for good
                log.exception("metadata_refresh_crashed")

    def _delay(self) -> float:
        if not self._failures:
            return self._interval
        return min(self._interval, FAILED_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 16))

    async def _run(self) -> FacadeError | None:
        """One refresh. Gives its failure instead of raising it: perhaps nobody waits any more."""
        async with self._running:
            self._queued = None  # whoever asks from here on gets a later one
            previous, wanted = self._view, frozenset(self._wanted)
            try:
                view = await asyncio.to_thread(self._views.refresh, previous, wanted)
            except FacadeError as error:
                self._failures += 1
                self._error = error
                self._observer.refresh_failed(error.reason or Reason.METADATA_UNAVAILABLE)
                log.warning("metadata_refresh_failed", reason=error.reason, error=error.message)
                if previous is None or wanted - previous.fleets.keys() - previous.failed.keys():
                    await self._fall_back(previous, wanted)
                return error
            self._failures = self._failures + 1 if view.failed else 0
            self._error = next(iter(view.failed.values()), None)
            self._refreshed_at = self._clock.time()
            self._swap(view)
            return None

    async def _fall_back(self, previous: SignedView | None, wanted: frozenset[str]) -> None:
        """Serve what an earlier process verified, while it is fresh."""
        try:
            view = await asyncio.to_thread(self._views.persisted, previous, wanted)
        except FacadeError as error:
            log.info("metadata_nothing_persisted", reason=error.reason, error=error.message)
        else:
            self._swap(view)

    def _swap(self, view: SignedView) -> None:
        before = self._view
        self._view = view
        self._observer.refreshed(view)
        if before is None or before.versions != view.versions:
            versions = " ".join(f"{role}:{number}" for role, number in view.versions.items())
            log.info("metadata_in_use", versions=versions)
        if view.problems and (before is None or before.problems != view.problems):
            log.warning("metadata_problems", problems=list(view.problems))
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(view)
            except Exception:  # its defect must not keep the view from the others
                log.exception("metadata_subscriber_crashed")


def _no_view() -> Unavailable:
    return Unavailable(
        "This facade has no valid signed metadata yet, so it cannot tell what may be served.",
        reason=Reason.METADATA_UNAVAILABLE,
        retry_after=RETRY_SECONDS,
    )
