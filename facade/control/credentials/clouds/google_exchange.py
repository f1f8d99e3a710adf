"""A service account's key exchanged for an access token, by `google-auth` over the checked transport.

Guarantees: google-auth signs and asks in a thread, and every request that it makes is sent by ours, to
the one token URI given, once per try of ours; another URL is refused. Whatever is no token is raised
in words (`google_refusals`). The assertion's times come from the injected clock. Cancelling the
exchange ends the request, and with it the thread.
"""

import asyncio
import concurrent.futures
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from yarl import URL

from facade.clock import Clock
from facade.control.credentials.clouds.google_refusals import google_refusal
from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.cloud import CloudAnswer, CloudHttp, CloudRequest
from facade.upstream.connection import Connection
from facade.upstream.redirects import place
from facade.upstream.token import TokenAnswer, parse_token_answer

SCOPES = (
    "https://www.googleapis.com/auth/devstorage.read_only",
    "https://www.googleapis.com/auth/cloud-platform.read-only",
)
"""What Container Registry and Artifact Registry want for reading; nothing can be written with it."""
ASSERTION_SECONDS = 3600
"""How long a token is asked for; Google's limit (and the assertion's own life)."""

Load = Callable[[str], ModuleType]


class GoogleExchange:
    """Exchanges keys for tokens.

    Arguments:
        http: how requests are sent.
        token_uri: the only place that is asked.
        load: imports a module.
    """

    def __init__(
        self,
        http: CloudHttp,
        clock: Clock,
        *,
        token_uri: str,
        load: Load = importlib.import_module,
    ) -> None:
        self._http = http
        self._clock = clock
        self._token_uri = token_uri
        self._load = load

    async def token(self, connection: Connection, key: Mapping[str, str]) -> TokenAnswer:
        """An access token for a checked key document.

        Raises Upstream, in words, for every refusal.
        """
        request = _Request(asyncio.get_running_loop(), self._http, connection, self._token_uri)
        try:
            await asyncio.to_thread(self._refresh, key, request, str(connection.host))
        finally:
            request.cancel()
        answer = request.answer
        assert answer is not None, "google-auth has asked, or raised"
        return parse_token_answer(
            answer.body, date=answer.headers.get("date"), host=place(URL(self._token_uri))
        )

    def _refresh(self, key: Mapping[str, str], request: "_Request", host: str) -> None:
        """What runs in the thread; google-auth's exceptions end here."""
        try:
            service_account = self._load("google.oauth2.service_account")
            errors = self._load("google.auth.exceptions")
        except ModuleNotFoundError as error:
            raise Upstream(
                "Tokens of Google need packages that are not installed here: "
                "pip install 'facade[google]'",
                reason=Reason.UPSTREAM_REFUSED,
            ) from error
        now = int(self._clock.time())
        request.now = self._clock.time
        try:
            credentials = service_account.Credentials.from_service_account_info(
                {**key, "token_uri": self._token_uri}, scopes=SCOPES
            ).with_claims({"iat": now, "exp": now + ASSERTION_SECONDS})
            credentials.refresh(request)
        except (errors.GoogleAuthError, ValueError, TypeError, AttributeError):
            # Not chained: what it says may quote the answer, token included.
            raise Upstream(
                f"Google's token service for {host} answered with something that is not "
                "understood. Check google_token_uri in the configuration, and any proxy between.",
                reason=Reason.UPSTREAM_REFUSED,
            ) from None


@dataclass(frozen=True, slots=True)
class _Response:
    """google.auth.transport.Response."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    data: bytes = field(repr=False)


class _Request:
    """google.auth.transport.Request: called in the thread, it sends in the event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        http: CloudHttp,
        connection: Connection,
        token_uri: str,
    ) -> None:
        self._loop = loop
        self._http = http
        self._connection = connection
        self._token_uri = token_uri
        self._running: concurrent.futures.Future[CloudAnswer] | None = None
        self._cancelled = False
        self.now: Callable[[], float] = lambda: 0.0
        self.answer: CloudAnswer | None = None

    def cancel(self) -> None:
        """End the request that runs, and start no other."""
        self._cancelled = True
        if self._running is not None:
            self._running.cancel()

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Response:
        if url != self._token_uri or self._cancelled:
            raise Upstream(
                f"Google's library wanted to ask {place(URL(url))}, which is not the token "
                "service configured; nothing was sent.",
                reason=Reason.UPSTREAM_REFUSED,
            )
        sent = Secret((body or b"").decode())
        request = CloudRequest(method, url, _plain(headers or {}), sent)
        self._running = asyncio.run_coroutine_threadsafe(
            self._http.send(self._connection, request), self._loop
        )
        answer = self._running.result()
        if answer.status != 200:
            # Raised through google-auth, which would ask again without our deadline and clock.
            raise google_refusal(self._connection.host, answer, sent=sent, now=self.now())
        self.answer = answer
        return _Response(answer.status, answer.headers, answer.body)


def _plain(headers: Mapping[str, Any]) -> Mapping[str, str]:
    return {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in headers.items()
    }
