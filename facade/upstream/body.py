"""Reading what an upstream sends: small bodies whole and bounded, blobs as a stream.

Guarantees: no small body is read beyond its limit in bytes and seconds; a stream that falls under
the minimum rate while we wait for it counts as broken, and one that is read slowly by us does
not. Chunks are passed on as they come, as large as the socket and the buffer give them. Does not
verify content: the caller does, and counts the bytes against the size that it knows.
"""

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp

from facade.clock import Clock
from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.gulps import Gulps
from facade.upstream.pour import Basin, Inflow, put, take_over
from facade.upstream.redirects import place
from facade.upstream.retry import Timeouts

MAX_ERROR_BYTES = 64 * 1024
"""Most that is read of an error body, of a redirect's, and of a token service's answer."""
DISCARD_SECONDS = 1.0
"""A body that nobody needs is read this long, to keep the connection; then that is dropped."""
_STALL_CHECKS = 10
"""How often per window the rate is looked at."""
_UNWATCHED_SECONDS = 0.1
"""Most bodies have come by then, and cost no task."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]{1,256}"', re.ASCII)


class TooLarge(Exception):
    """A small body went beyond its limit. Never leaves this package."""


async def read_small(response: aiohttp.ClientResponse, limit: int, seconds: float) -> bytes:
    """The whole body, when it is at most `limit` bytes and comes within `seconds`.

    Raises TooLarge, or Upstream when it breaks off (UPSTREAM_UNREACHABLE) or takes too long (DEADLINE).
    """
    declared = response.content_length
    if declared is not None and declared > limit:
        raise TooLarge
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while chunk := await response.content.readany():
                size += len(chunk)
                if size > limit:
                    raise TooLarge
                parts.append(chunk)
    except TimeoutError as error:
        raise _broke_off(response, "did not finish its answer in time", Reason.DEADLINE) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _broke_off(response, "did not finish its answer") from error
    return b"".join(parts)


async def discard(response: aiohttp.ClientResponse) -> bytes:
    """Read a small body that is not needed, so that its connection can be used again.

    Returns what came, at most MAX_ERROR_BYTES; a body that is long, slow or broken is given up
    and its connection closed. Never raises for the upstream's faults.
    """
    if response.content.at_eof():
        response.close()
        return b""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while size < MAX_ERROR_BYTES and (chunk := await response.content.readany()):
                size += len(chunk)
                parts.append(chunk)
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    finally:
        response.close()  # gives the connection back when the body was read to its end
    return b"".join(parts)[:MAX_ERROR_BYTES]


class BlobBody:
    """A blob's bytes on their way.

    Arguments (all readable):
        offset: where in the blob the first byte belongs; 0 when the upstream ignored the range.
        total: the blob's whole size as the upstream claims it, or None.
        etag: a strong ETag for If-Range, or None.
    """

    __slots__ = (
        "_clock",
        "_gulps",
        "_inflow",
        "_response",
        "_timeouts",
        "_timer",
        "_waiting",
        "_watcher",
        "etag",
        "offset",
        "received",
        "total",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        *,
        offset: int,
        total: int | None,
        etag: str | None,
        clock: Clock,
        timeouts: Timeouts,
    ) -> None:
        self._response = response
        self._clock = clock
        self._timeouts = timeouts
        self._waiting = False
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._gulps = Gulps(response)
        self._inflow: Inflow | None = None
        self.offset = offset
        self.total = total
        self.etag = etag
        self.received = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, in order, in chunks of up to some hundred KiB. Iterate once.

        Raises Upstream (UPSTREAM_UNREACHABLE) when the transfer breaks off or stalls.
        """
        self._begin()
        try:
            while chunk := await self._more():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error) from error
        finally:
            self._end()

    async def pour(self, basin: Basin) -> None:
        """All the bytes, in order, into `basin`. Once, instead of `chunks`.

        Raises Upstream (UPSTREAM_UNREACHABLE) when the transfer breaks off or stalls, and what `basin`
        raises.
        """
        self._begin()
        try:
            await self._pour(basin)
        except (aiohttp.ClientError, OSError) as error:
            raise self._broken(error) from error
        finally:
            self._end()

    async def _pour(self, basin: Basin) -> None:
        content, length = self._response.content, self._response.content_length
        while chunk := await self._more():
            await put(chunk, basin)
            while chunk := content.read_nowait():
                self._took(len(chunk))
                await put(chunk, basin)
            if not basin.space():
                await basin.make_space()
            left = (length or 0) - self.received
            if left > 0 and not content.total_bytes - self.received:
                self._inflow = take_over(self._response, left, basin, self._took)
                if self._inflow is not None:
                    await self._inflow.run()
                    return

    async def _more(self) -> bytes:
        """What comes next; nothing at the end. Raises ClientError, OSError."""
        self._waiting = True
        try:
            chunk = await self._response.content.readany()
        except RuntimeError as error:  # what aiohttp says of a connection that is gone already
            raise ConnectionResetError(str(error)) from error
        self._waiting = False
        self._took(len(chunk))
        return chunk

    def _took(self, count: int) -> None:
        self.received += count
        self._gulps.took(self.received)

    def _broken(self, error: BaseException) -> Upstream:
        stalled = isinstance(error, _Stalled)
        what = "sends too slowly" if stalled else "broke off in the middle of a blob"
        return _broke_off(self._response, what)

    def close(self) -> None:
        """Drop the transfer, or give its connection back when it was read to the end."""
        self._end()
        self._response.close()

    def _begin(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_UNWATCHED_SECONDS, self._begin_watch)

    def _begin_watch(self) -> None:
        self._watcher = asyncio.create_task(self._watch())

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        self._gulps.end()

    async def _watch(self) -> None:
        """Break the stream when a whole window of waiting brings too little.

        Only time in which we wait counts: a slow reader of ours is not the upstream's fault. A
        task of its own, so that a chunk costs no timer.
        """
        tick = self._timeouts.stall_window / _STALL_CHECKS
        waited, seen = 0, self.received
        while True:
            await self._clock.sleep(tick)
            if not (self._waiting if self._inflow is None else self._inflow.waiting):
                continue
            waited += 1
            if waited < _STALL_CHECKS:
                continue
            if self.received - seen < self._timeouts.stall_bytes:
                stalled = _Stalled("below the minimum rate")
                if self._inflow is not None:
                    self._inflow.fail(stalled)
                else:
                    self._response.content.set_exception(stalled)
                return
            waited, seen = 0, self.received


def open_body(
    response: aiohttp.ClientResponse, *, asked: int, host: str, clock: Clock, timeouts: Timeouts
) -> BlobBody:
    """The body of a 200 or 206 answer to a request from offset `asked` on.

    Raises Upstream (UPSTREAM_REFUSED), and closes the answer, when its range is none that was
    asked for.
    """
    start, total = 0, response.content_length
    if response.status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) > asked:
            response.close()
            raise Upstream(
                f"{host} answered a range with another one. Try again later.",
                reason=Reason.UPSTREAM_REFUSED,
                status=206,
            )
        start = int(found[1])
        total = None if found[3] == "*" else int(found[3])
    etag = response.headers.get("ETag", "")
    return BlobBody(
        response,
        offset=start,
        total=total,
        etag=etag if _STRONG_ETAG.fullmatch(etag) else None,
        clock=clock,
        timeouts=timeouts,
    )


class _Stalled(aiohttp.ClientError):
    pass


def _broke_off(
    response: aiohttp.ClientResponse, what: str, reason: Reason = Reason.UPSTREAM_UNREACHABLE
) -> Upstream:
    return Upstream(
        f"{place(response.url)} {what}. Try again later.",
        reason=reason,
        status=response.status,
    )
