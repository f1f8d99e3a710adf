"""Receiving one blob from its source, through breaks, up to its announced length.

Guarantees: after a break it goes on where it stopped (Range, If-Range with a strong ETag), with
pauses between attempts; a registry that ignores the range is read from the start, skipping what
is there; a wrong length either way is Integrity. Does not check the digest.
"""

from collections.abc import Callable
from functools import partial

import structlog

from facade.errors import Integrity, Upstream
from facade.reasons import Reason
from facade.serving.blobs.batch import BATCH_BYTES
from facade.serving.blobs.gather import Gatherer
from facade.serving.blobs.intake import Intake
from facade.serving.blobs.limits import TransferPorts
from facade.serving.blobs.port import BlobKey, BlobSource

log = structlog.get_logger(__name__)

MAX_PAUSE_SECONDS = 30.0
"""A registry that wants a longer pause in the middle of a blob ends the transfer."""
_FINAL = frozenset({Reason.UPSTREAM_NOT_FOUND, Reason.UPSTREAM_REFUSED})
_RANGE_NOT_SATISFIABLE = 416
_COUNT_BYTES = 1024 * 1024


class Receiver:
    """Brings a gatherer from where it stands to the end of the blob.

    Arguments:
        size: bytes of the whole blob.
        ports: of which it takes the clock, the observer and `limits.resume`.
        intake: told whether the answer itself says where it ends.
    """

    def __init__(
        self,
        key: BlobKey,
        size: int,
        source: BlobSource,
        gatherer: Gatherer,
        ports: TransferPorts,
        intake: Intake,
    ) -> None:
        self._host = str(key.host)
        self._fetched = partial(ports.observer.fetched, self._host)
        self._size = size
        self._source = source
        self._gatherer = gatherer
        self._clock = ports.clock
        self._observer = ports.observer
        self._resume = ports.limits.resume
        self._intake = intake
        self._etag: str | None = None
        self._answered = False
        self.resumed = gatherer.end > 0
        """Whether the bytes are of more than one answer, or partly of a former process."""

    def restart(self) -> None:
        """Begin anew, from zero: the gatherer stands there."""
        self._etag = None
        self.resumed = False

    async def receive(self) -> None:
        """Return when all bytes are there and worked on.

        Raises Integrity (wrong length), Upstream (broken, and resuming did not help), Denied.
        """
        if self._complete():
            return
        self._observer.transfer_started(self._host)
        try:
            await self._receive()
        finally:
            self._observer.transfer_finished(self._host)

    async def _receive(self) -> None:
        failures = 0
        while True:
            before = self._gatherer.end
            try:
                await self._receive_once()
            except Upstream as error:
                await self._gatherer.drain()
                if self._complete():
                    return
                failures = 1 if self._gatherer.end > before else failures + 1
                pause = self._pause(error, failures)
                self.resumed = self.resumed or self._gatherer.end > 0
                log.info("transfer_resumes", host=self._host, pause=pause, why=error.message)
            else:
                return
            await self._clock.sleep(pause)

    def _complete(self) -> bool:
        """Whether nothing is left to ask for. Even an empty blob is asked for once."""
        return self._gatherer.end == self._size > 0

    def _pause(self, error: Upstream, failures: int) -> float:
        """Seconds until the next attempt. Raises what ends the transfer instead."""
        if error.status == _RANGE_NOT_SATISFIABLE and self._gatherer.end > 0:
            raise Integrity("The registry's content is shorter than what was there.") from error
        if not self._answered or error.reason in _FINAL or failures >= self._resume.attempts:
            raise error
        pause = max(self._resume.pause(failures), error.retry_after or 0.0)
        if pause > MAX_PAUSE_SECONDS:
            raise error
        return pause

    async def _receive_once(self) -> None:
        start = self._gatherer.end
        async with self._source.open(start, self._etag) as body:
            self._answered = True
            if body.total is not None and body.total != self._size:
                raise Integrity(
                    f"The registry announces {body.total} bytes; {self._size} were expected."
                )
            if body.offset > start:
                raise Upstream(
                    "The registry answered with another range than it was asked for.",
                    reason=Reason.UPSTREAM_REFUSED,
                )
            self._etag = body.etag
            # Of a range's answer the total says nothing of its own length.
            self._intake.exact = start == 0 and body.total is not None
            basin = _Counted(self._gatherer, self._size, start - body.offset, self._fetched)
            try:
                await body.pour(basin)
            finally:
                basin.close()
        await self._gatherer.drain()
        if self._gatherer.end < self._size:
            if body.total is None:
                raise Integrity(
                    f"The content ends after {self._gatherer.end} bytes; "
                    f"{self._size} were expected."
                )
            raise Upstream(
                "The registry ended the transfer early.", reason=Reason.UPSTREAM_UNREACHABLE
            )


class _Counted:
    """The gatherer as a basin: skips what it has, counts what comes, and refuses what is too much."""

    def __init__(
        self, gatherer: Gatherer, size: int, skip: int, count: Callable[[int], None]
    ) -> None:
        self.make_space = gatherer.make_space
        self._gatherer = gatherer
        self._size = size
        self._skip = skip
        self._count = count
        self._uncounted = 0
        self._aside = memoryview(bytearray(min(skip, BATCH_BYTES) or 1))
        """For bytes that nobody needs."""

    def space(self) -> memoryview:
        if self._skip:
            return self._aside[: self._skip]
        left = self._size - self._gatherer.end
        # A byte more than there may be: whoever sends it is told apart from who ends.
        return self._gatherer.space()[:left] if left else self._aside[:1]

    def filled(self, count: int) -> None:
        self._uncounted += count
        if self._uncounted >= _COUNT_BYTES:
            self.close()
        if self._skip:
            self._skip -= count
        elif self._gatherer.end == self._size:
            raise Integrity(f"The content is longer than the expected {self._size} bytes.")
        else:
            self._gatherer.filled(count)

    def close(self) -> None:
        """Count what was not counted yet."""
        uncounted, self._uncounted = self._uncounted, 0
        if uncounted:
            self._count(uncounted)
