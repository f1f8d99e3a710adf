"""The token client: speaks to the realms that registries name, for the control wing's broker.

Guarantees: a realm is judged before anything is sent to it; credentials follow no redirect; answers
are read up to MAX_ERROR_BYTES and never shown unredacted; the address rules and deadlines are
those of the registry client. Keeps no token and no credential.
"""

from collections.abc import Sequence

from aiohttp import TraceConfig
from aiohttp.abc import AbstractResolver

from facade.clock import Clock
from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.body import MAX_ERROR_BYTES, TooLarge, discard, read_small
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, Scope
from facade.upstream.failures import Broken
from facade.upstream.redirects import place
from facade.upstream.refusals import refusal
from facade.upstream.retry import Attempts, RetryPolicy, Timeouts, is_transient, parse_retry_after
from facade.upstream.token import (
    BasicCredentials,
    TokenAnswer,
    TokenRequest,
    parse_token_answer,
    token_requests,
)
from facade.upstream.transport import Outgoing, Transport


class TokenClient:
    """Exchanges credentials for registry tokens. One per process.

    Arguments:
        addresses, clock, timeouts, retry, resolver, watchers: as `client.RegistryClient`.
    """

    def __init__(
        self,
        *,
        addresses: AddressPolicy,
        clock: Clock,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        resolver: AbstractResolver | None = None,
        watchers: Sequence[TraceConfig] = (),
    ) -> None:
        self._clock = clock
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._transport = Transport(
            addresses=addresses, timeouts=self._timeouts, resolver=resolver, watchers=watchers
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def exchange(
        self,
        connection: Connection,
        challenge: Challenge,
        scope: Scope,
        credentials: BasicCredentials | None,
    ) -> TokenAnswer:
        """Ask the challenge's realm for a token for `scope`.

        Arguments:
            challenge: a "bearer" challenge of the connection's registry.
            credentials: None = anonymously.

        Raises Upstream: a realm that may not be told, unreachable, refused (with the service's
        redacted words and its status), or an answer without a token.
        """
        attempts = Attempts(self._retry, self._timeouts, self._clock.monotonic())
        requests = token_requests(connection, challenge, scope, credentials)
        password = None if credentials is None else credentials.password
        answer: TokenAnswer | Upstream | None = None
        for request in requests:
            answer = await self._send(connection, request, password, attempts)
            if isinstance(answer, TokenAnswer):
                return answer
            if answer.status not in (404, 405):
                break
        assert isinstance(answer, Upstream), "there is always a request"
        raise answer

    async def _send(
        self,
        connection: Connection,
        request: TokenRequest,
        password: Secret | None,
        attempts: Attempts,
    ) -> TokenAnswer | Upstream:
        """One kind of request, retried: a token, or the refusal that stands."""
        while True:
            retry_after: float | None = None
            try:
                result = await self._once(connection, request, password, attempts)
                if isinstance(result, TokenAnswer) or not is_transient(result.status or 0):
                    return result
                retry_after = result.retry_after if result.status == 429 else None
                attempts.reached()
            except Broken as error:
                if not error.transient:
                    raise
                if error.reached:
                    attempts.reached()
                result = error
            pause = attempts.next_pause(self._clock.monotonic(), retry_after=retry_after)
            if pause is None:
                if isinstance(result, Broken):
                    raise result
                return result
            await self._clock.sleep(pause)

    async def _once(
        self,
        connection: Connection,
        request: TokenRequest,
        password: Secret | None,
        attempts: Attempts,
    ) -> TokenAnswer | Upstream:
        host = place(request.url)
        outgoing = Outgoing(
            request.method,
            request.url,
            {"Accept": "application/json"},
            authorization=request.authorization,
            secret_form=request.secret_form,
        )
        within = attempts.remaining(self._clock.monotonic())
        response = await self._transport.send(connection, outgoing, within=within)
        if response.status == 200:
            try:
                data = await read_small(response, MAX_ERROR_BYTES, self._timeouts.small_body)
            except TooLarge:
                raise Upstream(
                    f"The token service {host} answers with more than {MAX_ERROR_BYTES} bytes; "
                    "that is refused.",
                    reason=Reason.UPSTREAM_REFUSED,
                    status=200,
                ) from None
            finally:
                response.close()
            return parse_token_answer(data, date=response.headers.get("Date"), host=host)
        return refusal(
            f"The token service {host} of {connection.host}",
            response.status,
            await discard(response),
            what="a token",
            sent=request.authorization,
            password=password,
            retry_after=parse_retry_after(response.headers.get("Retry-After"), self._clock.time()),
        )
