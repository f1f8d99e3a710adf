"""One `CachePort` of all workers.

Guarantees: `refresh` is True only when every worker said so in time and none is just starting with what
may be old, and never raises. The rest is
answered by one worker, since the folder is shared: by another one when the first is away, also in the
middle of a job; only the transfers in flight are each worker's own, and are summed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from facade.errors import FacadeError, Unavailable
from facade.link.calls import RETRY_AFTER_SECONDS, Away
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.connection import Connection
from facade.wings import CachePort, CacheStatus, WarmResult

log = structlog.get_logger(__name__)

T = TypeVar("T")

REFRESH_SECONDS = 5.0
"""`wings.CachePort.refresh`."""


class WorkersCachePort:
    """Implements `facade.wings.CachePort`.

    Arguments:
        ports: those of the workers that live, asked anew each time.
        settled: whether no other one starts, or has yet to take up what changed meanwhile.
    """

    def __init__(
        self,
        ports: Callable[[], Sequence[CachePort]],
        *,
        settled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._ports = ports
        self._settled = settled

    async def refresh(self) -> bool:
        settled = self._settled()  # at the moment when those are listed who are asked
        answers = await _all(lambda port: port.refresh(), self._ports(), REFRESH_SECONDS)
        for answer in answers:
            if isinstance(answer, FacadeError):
                log.warning("refresh_pending", error=answer.message)
        # Nobody has taken it up where nobody lives; whoever starts then takes up what is current.
        return settled and bool(answers) and all(answer is True for answer in answers)

    async def status(self) -> CacheStatus:
        answers = await _all(lambda port: port.status(), self._ports(), REFRESH_SECONDS)
        found = [answer for answer in answers if isinstance(answer, CacheStatus)]
        if not found:
            raise next((error for error in answers if isinstance(error, FacadeError)), _nobody())
        return replace(found[0], in_flight=sum(each.in_flight for each in found))

    async def warm(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        *,
        fetch: bool = True,
    ) -> WarmResult:
        # The same blob goes to the same worker, different ones to different workers.
        return await self._one(
            lambda port: port.warm(connection, repository, digest, size, fetch=fetch),
            first=int(digest.hex[:8], 16),
        )

    async def verify(self) -> tuple[int, int]:
        return await self._one(lambda port: port.verify())

    async def prune(self) -> tuple[int, int]:
        return await self._one(lambda port: port.prune())

    async def _one(self, ask: Callable[[CachePort], Awaitable[T]], *, first: int = 0) -> T:
        """What the first worker that is not away says, beginning with number `first`."""
        ports = self._ports()
        failure: Unavailable = _nobody()
        for index in range(len(ports)):
            try:
                return await ask(ports[(first + index) % len(ports)])
            except Away as error:
                failure = error
        raise failure


async def _all(
    ask: Callable[[CachePort], Awaitable[T]], ports: Sequence[CachePort], seconds: float
) -> list[T | FacadeError | None]:
    """What each says within `seconds`: an answer, its failure, or None for silence."""
    asked = [asyncio.ensure_future(_outcome(ask(port))) for port in ports]
    try:
        if asked:
            await asyncio.wait(asked, timeout=seconds)
    finally:
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return [None if each.cancelled() else each.result() for each in asked]


async def _outcome(asked: Awaitable[T]) -> T | FacadeError:
    try:
        return await asked
    except FacadeError as error:
        return error


def _nobody() -> Unavailable:
    return Unavailable(
        "No serving process runs just now; facade up starts them anew. Try again in a moment.",
        reason=Reason.INTERNAL,
        retry_after=RETRY_AFTER_SECONDS,
    )
