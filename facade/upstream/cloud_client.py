"""The cloud client: speaks to Google's and AWS's own APIs, for the control wing's providers.

Guarantees: the same checked transport as for registries (address rules at connect time, proxy and CA
of the connection, deadlines); redirects are never followed; answers are read up to
MAX_ERROR_BYTES; what may be different next time is tried again within the deadline. Judges no
answer, and keeps none.
"""

from aiohttp.abc import AbstractResolver
from yarl import URL

from facade.clock import Clock
from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.addresses import AddressPolicy
from facade.upstream.body import MAX_ERROR_BYTES, TooLarge, read_small
from facade.upstream.cloud import CloudAnswer, CloudRequest
from facade.upstream.connection import Connection
from facade.upstream.failures import Broken
from facade.upstream.redirects import place
from facade.upstream.retry import Attempts, RetryPolicy, Timeouts, is_transient, parse_retry_after
from facade.upstream.transport import Outgoing, Transport


class CloudClient:
    """Implements `facade.upstream.cloud.CloudHttp`. One per process.

    Arguments:
        addresses, clock, timeouts, retry, resolver: as `client.RegistryClient`.
    """

    def __init__(
        self,
        *,
        addresses: AddressPolicy,
        clock: Clock,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._clock = clock
        self._timeouts = timeouts or Timeouts()
        self._retry = retry or RetryPolicy()
        self._transport = Transport(addresses=addresses, timeouts=self._timeouts, resolver=resolver)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def send(self, connection: Connection, request: CloudRequest) -> CloudAnswer:
        """The answer, whatever its status. Raises Upstream when there is none."""
        attempts = Attempts(self._retry, self._timeouts, self._clock.monotonic())
        while True:
            retry_after: float | None = None
            result: CloudAnswer | Broken
            try:
                result = await self._once(connection, request, attempts)
                if not is_transient(result.status):
                    return result
                attempts.reached()
                retry_after = parse_retry_after(
                    result.headers.get("retry-after"), self._clock.time()
                )
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
        self, connection: Connection, request: CloudRequest, attempts: Attempts
    ) -> CloudAnswer:
        url = URL(request.url, encoded=True)  # a signature covers it as it is
        outgoing = Outgoing(request.method, url, request.headers, secret_form=request.body)
        within = attempts.remaining(self._clock.monotonic())
        response = await self._transport.send(connection, outgoing, within=within)
        try:
            body = await read_small(response, MAX_ERROR_BYTES, self._timeouts.small_body)
        except TooLarge:
            raise Upstream(
                f"{place(url)} answers with more than {MAX_ERROR_BYTES} bytes; that is refused.",
                reason=Reason.UPSTREAM_REFUSED,
                status=response.status,
            ) from None
        finally:
            response.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return CloudAnswer(response.status, headers, body)
