"""One logical request to a registry: authorization, redirects and retries around single sends.

Guarantees: what the policies of this package promise together: one send when everything is known
and well; the answer's head within `Timeouts.first_byte`, whatever happens; Authorization on the
registry's own origin only; nothing goes out that `gate` does not let pass. Decides nothing itself:
`auth_flow`, `redirects`, `retry` and `gate` do.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import aiohttp
from yarl import URL

from facade.clock import Clock
from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.auth_flow import Answer, Ask, authorize
from facade.upstream.body import discard
from facade.upstream.challenge import Challenge, parse_challenges
from facade.upstream.connection import Authorization, Authorizer, Connection, Scope
from facade.upstream.failures import Broken
from facade.upstream.gate_port import Gate, Passage
from facade.upstream.observer import UpstreamObserver
from facade.upstream.redirects import STATUSES, Hop, follow, same_origin
from facade.upstream.retry import Attempts, RetryPolicy, Timeouts, is_transient, parse_retry_after
from facade.upstream.transport import Outgoing, Transport

Known = Callable[[Connection, Scope], Authorization | None]
"""What was asked for a moment ago and may be sent again (`remembered`)."""
_ERRORS = 400
"""An answer below says nothing to `auth_flow`."""
_DOWN = (Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_RATE_LIMITED, Reason.DEADLINE)
"""A token service that answers so is not there for anybody; one that refuses has answered."""


@dataclass(frozen=True)
class Request:
    """A GET or HEAD on the registry's own origin."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def kind(self) -> str:
        """What registries count apart: "manifests", "blobs", or "other"."""
        parts = self.url.raw_path.rsplit("/", 2)
        return parts[-2] if parts[-2] in ("manifests", "blobs") else "other"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer that stands; its body is not read yet. `sent` is for redaction."""

    response: aiohttp.ClientResponse
    sent: Secret | None


class Exchanger:
    """Drives requests. See `client.RegistryClient` for the arguments."""

    def __init__(
        self,
        *,
        transport: Transport,
        authorizer: Authorizer,
        clock: Clock,
        timeouts: Timeouts,
        retry: RetryPolicy,
        observer: UpstreamObserver,
        gate: Gate,
        known: Known,
    ) -> None:
        self._gate = gate
        self._known = known
        self._transport = transport
        self._authorizer = authorizer
        self._clock = clock
        self._timeouts = timeouts
        self._retry = retry
        self._observer = observer

    async def open(self, connection: Connection, request: Request, scope: Scope) -> Reply:
        """Send `request`, authorized for `scope`; the caller closes the reply's response.

        Returns whatever answer stands in the end, of any status. Raises Upstream when there is
        none: unreachable, past the deadline, or redirected where it may not go; and whatever the
        authorizer raises.
        """
        attempts = Attempts(self._retry, self._timeouts, self._clock.monotonic())
        known = self._known(connection, scope)
        reply: Reply | None = None
        if known is not None:  # nobody is asked, so no gate and no deadline stand before it
            reply = await self._attempt(connection, request, known, attempts)
            if reply.response.status < _ERRORS:
                return reply
        return await self._authorized(connection, request, scope, attempts, known, reply)

    async def _authorized(
        self,
        connection: Connection,
        request: Request,
        scope: Scope,
        attempts: Attempts,
        known: Authorization | None,
        reply: Reply | None,
    ) -> Reply:
        """What `authorize` makes of it. With what is `known` it was sent already, and got `reply`."""
        flow = authorize(connection)
        given: Authorization | Answer
        try:
            step = next(flow)
            if known is not None and reply is not None:
                flow.send(known)
                step = flow.send(_answer(connection, reply.response))
            while True:
                if isinstance(step, Ask):
                    given = await self._ask(connection, request, scope, step, attempts)
                else:
                    if reply is not None:
                        await discard(reply.response)
                    reply = await self._attempt(connection, request, step.authorization, attempts)
                    given = _answer(connection, reply.response)
                step = flow.send(given)
        except StopIteration:
            assert reply is not None, "a flow sends at least once"
            return reply
        except BaseException:
            if reply is not None:
                reply.response.close()
            raise

    async def _ask(
        self,
        connection: Connection,
        request: Request,
        scope: Scope,
        step: Ask,
        attempts: Attempts,
    ) -> Authorization:
        """A token service that is down closes the gate as the registry itself does."""
        passage = await self._enter(connection, request, attempts)
        try:
            async with asyncio.timeout(attempts.remaining(self._clock.monotonic())):
                given = await self._authorizer.authorization(
                    connection, scope, challenge=step.challenge, refused=step.refused
                )
        except TimeoutError as error:
            late = _late(connection)
            passage.failed(late)
            raise late from error
        except Upstream as error:
            if error.reason in _DOWN:
                passage.failed(error)
            else:
                passage.left()
            raise
        except BaseException:
            passage.left()
            raise
        passage.left()
        return given

    async def _enter(self, connection: Connection, request: Request, attempts: Attempts) -> Passage:
        within = attempts.remaining(self._clock.monotonic())
        return await self._gate.enter(connection, request.kind, within)

    async def _attempt(
        self,
        connection: Connection,
        request: Request,
        authorization: Authorization,
        attempts: Attempts,
    ) -> Reply:
        """Send until the answer is worth keeping, or the budget is spent."""
        while True:
            retry_after: float | None = None
            response: aiohttp.ClientResponse | None = None
            failure: Broken | None = None
            passage = await self._enter(connection, request, attempts)
            try:
                response = await self._follow(connection, request, authorization, attempts)
            except Broken as error:
                passage.failed(error)
                if not error.transient:
                    raise
                failure, why = error, "unreachable"
            except BaseException:
                passage.left()
                raise
            else:
                retry_after = parse_retry_after(
                    response.headers.get("Retry-After"), self._clock.time()
                )
                passage.answered(response.status, retry_after)
                if not is_transient(response.status):
                    return Reply(response, authorization.header)
                why = "rate-limited" if response.status == 429 else "status"
            if failure is None or failure.reached:
                attempts.reached()
            pause = attempts.next_pause(self._clock.monotonic(), retry_after=retry_after)
            if pause is None:
                if failure is not None:
                    raise failure
                assert response is not None
                return Reply(response, authorization.header)
            if response is not None:
                await discard(response)
            self._observer.retried(str(connection.host), why)
            await self._clock.sleep(pause)

    async def _follow(
        self,
        connection: Connection,
        request: Request,
        authorization: Authorization,
        attempts: Attempts,
    ) -> aiohttp.ClientResponse:
        hop = Hop(request.url)
        while True:
            response = await self._send(connection, request, hop, authorization, attempts)
            if response.status not in STATUSES:
                return response
            try:
                hop = follow(
                    hop,
                    response.headers.get("Location"),
                    registry=request.url,
                    insecure=connection.settings.insecure,
                )
            finally:
                await discard(response)

    async def _send(
        self,
        connection: Connection,
        request: Request,
        hop: Hop,
        authorization: Authorization,
        attempts: Attempts,
    ) -> aiohttp.ClientResponse:
        started = self._clock.monotonic()
        within = attempts.remaining(started)
        if within <= 0:
            raise _late(connection)
        status: int | None = None
        try:
            response = await self._transport.send(
                connection,
                Outgoing(
                    request.method,
                    hop.url,
                    request.headers,
                    authorization=authorization.header if hop.trusted else None,
                ),
                within=within,
            )
            status = response.status
            if hop.trusted:
                self._gate.heard(connection, request.kind, response.headers)
        finally:
            self._observer.answered(str(connection.host), status, self._clock.monotonic() - started)
        return response


def challenges_of(response: aiohttp.ClientResponse) -> tuple[Challenge, ...]:
    """The challenges of an answer, of all its WWW-Authenticate fields."""
    return parse_challenges(response.headers.getall("WWW-Authenticate", ()))


def _answer(connection: Connection, response: aiohttp.ClientResponse) -> Answer:
    if response.status < _ERRORS:
        return Answer(response.status)
    return Answer(
        response.status,
        challenges_of(response),
        from_registry=same_origin(response.url, URL(connection.base_url)),
    )


def _late(connection: Connection) -> Upstream:
    return Upstream(
        f"{connection.host} did not answer in time, all attempts included. Try again later.",
        reason=Reason.DEADLINE,
    )
