"""Asking over a Unix socket: one HTTP exchange, bounded in bytes and seconds.

Guarantees: what the other side raised is raised here, as the same class (`errors_codec`); whatever is
wrong with the way there, or with what came back, is `Away`. `give_up` ends all calls that run, at
once. Connects anew for each call that finds no idle connection; keeps those for
`IDLE_SECONDS`. Never tries twice: the caller knows whether that is right.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import TraceConfig

from facade.errors import Unavailable
from facade.link.errors_codec import error_in
from facade.link.strict import Malformed, load
from facade.link.unix import checked
from facade.reasons import Reason

IDLE_SECONDS = 15.0
CONNECT_SECONDS = 5.0
"""To a Unix socket it takes no time unless the other side's queue is full."""
MAX_CALLS = 512
"""At once; more wait for their turn, within their deadline."""
MAX_ERROR_BYTES = 256 * 1024
RETRY_AFTER_SECONDS = 2.0
OCTETS = "application/octet-stream"
_BASE = "http://link"  # never resolved: the connector knows one socket


class Away(Unavailable):
    """The other side does not answer, or not as it should."""


class Caller:
    """Calls to the one socket `path`.

    Arguments:
        what: who answers there, for messages.
        reason: that it does not.
        watchers: aiohttp's own hooks around each request, for traces.
    """

    def __init__(
        self, path: Path, what: str, reason: Reason, *, watchers: Sequence[TraceConfig] = ()
    ) -> None:
        self._watchers = watchers
        self._path = checked(path)
        self._what = what
        self._reason = reason
        self._session: aiohttp.ClientSession | None = None
        self._running: set[asyncio.Timeout] = set()
        self._closed = False

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made at first use: aiohttp wants a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                _BASE,
                connector=aiohttp.UnixConnector(
                    self._path, limit=MAX_CALLS, keepalive_timeout=IDLE_SECONDS
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=list(self._watchers),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                auto_decompress=False,
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
            )
        return self._session

    async def close(self) -> None:
        """Break off what runs, and close; calls after this are refused."""
        self._closed = True
        self.give_up()
        if self._session is not None:
            await self._session.close()

    def give_up(self) -> None:
        """End all calls that run with `Away`."""
        now = asyncio.get_running_loop().time()
        for deadline in self._running:
            if not deadline.expired():
                deadline.reschedule(now)

    async def call(
        self,
        method: str,
        route: str,
        body: bytes = b"",
        *,
        limit: int,
        seconds: float | None,
        quiet: float | None = None,
    ) -> bytes:
        """The body of the answer.

        Arguments:
            limit: bytes of the answer, at most.
            seconds: for all of it; None = as long as it takes.
            quiet: seconds without a byte after which it is given up.

        Raises Away, or what the other side raised.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=quiet)
        async with (
            self.bounded(seconds),
            self.session.request(
                method, route, data=body or None, timeout=timeout, allow_redirects=False
            ) as response,
        ):
            failed = response.status >= 400
            data = await _read(response, MAX_ERROR_BYTES if failed else limit)
            if failed:
                raise error_in(load(data))
        return data

    @asynccontextmanager
    async def bounded(self, seconds: float | None) -> AsyncIterator[None]:
        """Within: a call, that `give_up` may end; what is wrong with the way there is raised as Away.

        Arguments:
            seconds: after which it is; None = as long as it takes.
        """
        if self._closed:
            raise self.away("this process is ending")
        try:
            async with asyncio.timeout(seconds) as deadline:
                self._running.add(deadline)
                try:
                    yield
                finally:
                    self._running.discard(deadline)
        except TimeoutError as error:
            raise self.away("it is silent") from error
        except Malformed as error:
            raise self.away(f"its answer cannot be read: {error}") from error
        except (aiohttp.ClientError, OSError, EOFError, RuntimeError) as error:
            # aiohttp's StreamReader raises a bare RuntimeError when its connection went between reads.
            raise self.away("the connection broke") from error

    def away(self, why: str) -> Away:
        """The error that says so, and `why` in a few words."""
        return Away(
            f"{self._what} does not answer just now ({why}). Try again in a moment.",
            reason=self._reason,
            retry_after=RETRY_AFTER_SECONDS,
        )


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > limit:
            response.close()
            raise Malformed(f"more than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)
