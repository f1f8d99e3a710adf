"""Keeping the metadata fresh while the control plane runs, and warning in time about the rest.

Guarantees: with the schedule running and the disk writable, no online role ever expires: each is due at
half of its life, and looked at far more often. A failure is logged, reported and tried again, never
the end of the task. Does not renew root or targets: it warns.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from facade.clock import Clock
from facade.control.signing.publisher import Publisher
from facade.control.signing.status import TrustStatus
from facade.errors import FacadeError

log = structlog.get_logger(__name__)

RETRY_SECONDS = 60
WARN_SECONDS = 24 * 3600
"""How often a warning that still holds is logged again."""


class SigningObserver(Protocol):
    """Who wants to know (metrics)."""

    def resigned(self) -> None:
        """Roles were signed anew."""
        ...

    def resign_failed(self) -> None:
        """They were due and could not be signed."""
        ...

    def role_expires(self, role: str, seconds_left: float) -> None:
        """A role's remaining life, negative when over."""
        ...


class NullSigningObserver:
    """Nobody wants to know."""

    def resigned(self) -> None:
        pass

    def resign_failed(self) -> None:
        pass

    def role_expires(self, role: str, seconds_left: float) -> None:
        pass


class ResignSchedule:
    """Signs anew what is due, as a task.

    Arguments:
        publisher: does the signing; called in a thread.
        status: reads the state of the roles; called in a thread.
        check_seconds: between two looks; a small part of the timestamp's 12 h.
    """

    def __init__(
        self,
        publisher: Publisher,
        status: Callable[[], TrustStatus],
        clock: Clock,
        *,
        check_seconds: float,
        observer: SigningObserver | None = None,
    ) -> None:
        self._check_seconds = check_seconds
        self._publisher = publisher
        self._status = status
        self._clock = clock
        self._observer = observer or NullSigningObserver()
        self._task: asyncio.Task[None] | None = None
        self._warned: dict[str, float] = {}

    async def start(self) -> None:
        """Sign at once what is due or expired, then keep on looking. Raises as `resign` does."""
        await self.check()
        self._task = asyncio.create_task(self._run(), name="resign-schedule")

    async def stop(self) -> None:
        """Stop looking. A signing under way is finished by its thread."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def check(self) -> bool:
        """Look once: sign what is due, report and warn. Returns whether anything was signed."""
        try:
            signed = await asyncio.to_thread(self._publisher.resign)
        except FacadeError:
            self._observer.resign_failed()
            raise
        if signed:
            log.info("metadata_resigned")
            self._observer.resigned()
        self._report(await asyncio.to_thread(self._status))
        return signed

    async def _run(self) -> None:
        pause = self._check_seconds
        while True:
            await self._clock.sleep(pause)
            try:
                await self.check()
                pause = self._check_seconds
            except FacadeError as error:
                log.error("metadata_resign_failed", error=error.message)
                pause = min(RETRY_SECONDS, self._check_seconds)

    def _report(self, status: TrustStatus) -> None:
        now = self._clock.time()
        for role in status.roles:
            self._observer.role_expires(role.name, role.expires - now)
        warnings = status.warnings(now)
        self._warned = {text: at for text, at in self._warned.items() if text in warnings}
        for text in warnings:
            if now - self._warned.get(text, -WARN_SECONDS) >= WARN_SECONDS:
                log.warning("metadata_needs_attention", detail=text)
                self._warned[text] = now
