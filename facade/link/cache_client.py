"""`CachePort` of one worker, asked over its socket, with its samples and findings.

Guarantees: short questions have `SMALL_SECONDS`; a job has no limit but ends, with `Away`, when its
worker does, or shows no sign of life for `QUIET_SECONDS`. Cancelling a call ends the job there.
"""

from pathlib import Path

from facade.link.cache_codec import (
    counts_in,
    flag_in,
    status_in,
    warm_request_out,
    warm_result_in,
)
from facade.link.calls import Away, Caller
from facade.link.errors_codec import error_in
from facade.link.strict import Fields, Malformed, dump, load
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.connection import Connection
from facade.wings import CacheStatus, WarmResult

REFRESH_SECONDS = 6.0
"""The worker itself says False after 5 s (`wings.CachePort.refresh`)."""
SMALL_SECONDS = 5.0
QUIET_SECONDS = 20.0
"""Ten beats."""
MAX_ANSWER_BYTES = 256 * 1024
"""Beats included: a job of six days."""
MAX_SAMPLES_BYTES = 16 * 1024 * 1024
MAX_HEALTH_BYTES = 256 * 1024


class SocketCachePort:
    """Implements `facade.wings.CachePort` for one worker. Call `close` at the end.

    Arguments:
        path: the worker's socket; it may come and go.

    Raises Invalid for a path that is too long.
    """

    def __init__(self, path: Path, *, name: str = "A serving process") -> None:
        self._caller = Caller(path, name, Reason.INTERNAL)

    async def close(self) -> None:
        """Break off what runs."""
        await self._caller.close()

    async def refresh(self) -> bool:
        data = await self._caller.call("POST", "/refresh", limit=16, seconds=REFRESH_SECONDS)
        try:
            return flag_in(load(data))
        except Malformed as error:
            raise self._unreadable(error) from error

    async def status(self) -> CacheStatus:
        data = await self._caller.call(
            "POST", "/status", limit=MAX_ANSWER_BYTES, seconds=SMALL_SECONDS
        )
        try:
            return status_in(load(data))
        except Malformed as error:
            raise self._unreadable(error) from error

    async def warm(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        *,
        fetch: bool = True,
    ) -> WarmResult:
        body = dump(warm_request_out((connection, repository, digest, size, fetch)))
        value = await self._job("/warm", body)
        try:
            return warm_result_in(value)
        except Malformed as error:
            raise self._unreadable(error) from error

    async def verify(self) -> tuple[int, int]:
        return self._counts(await self._job("/verify"))

    async def prune(self) -> tuple[int, int]:
        return self._counts(await self._job("/prune"))

    async def samples(self) -> bytes:
        """What it counts, as its `metrics` gave it. Raises Unavailable."""
        return await self._caller.call(
            "GET", "/metrics-samples", limit=MAX_SAMPLES_BYTES, seconds=SMALL_SECONDS
        )

    async def health(self) -> bytes:
        """How it is, as its `health` gave it. Raises Unavailable."""
        return await self._caller.call(
            "GET", "/health", limit=MAX_HEALTH_BYTES, seconds=SMALL_SECONDS
        )

    async def _job(self, route: str, body: bytes = b"") -> object:
        data = await self._caller.call(
            "POST", route, body, limit=MAX_ANSWER_BYTES, seconds=None, quiet=QUIET_SECONDS
        )
        try:
            fields = Fields(load(data), "answer")
            value, failed = fields.any("value"), fields.any("error")
            fields.done()
            error = None if failed is None else error_in(failed)
        except Malformed as malformed:
            raise self._unreadable(malformed) from malformed
        if error is not None:
            raise error
        return value

    def _counts(self, value: object) -> tuple[int, int]:
        try:
            return counts_in(value)
        except Malformed as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Malformed) -> Away:
        return self._caller.away(f"its answer cannot be read: {error}")
