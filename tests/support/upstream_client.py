"""Upstream clients as tests need them: loopback allowed, retries without real waiting.

Guarantees: the real clients on real sockets; only the clock and the chance are the test's. With the
default clock (`FakeClock(auto=True)`) pauses take no time, but a stalled body is "noticed" at once:
tests that read blobs slowly pass `SystemClock()`.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp.abc import AbstractResolver

from facade.clock import Clock
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Authorizer, Connection
from facade.upstream.exchange import Known
from facade.upstream.observer import NullObserver, UpstreamObserver
from facade.upstream.retry import RetryPolicy, Timeouts
from facade.upstream.token_client import TokenClient
from tests.support.authorizers import FixedAuthorizer
from tests.support.basin import poured
from tests.support.clock import FakeClock

APP = Repository("org/app")
LOOPBACK = ("127.0.0.0/8",)


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.statuses: list[int | None] = []
        self.retries: list[str] = []

    def answered(self, host: str, status: int | None, seconds: float) -> None:
        assert seconds >= 0
        self.statuses.append(status)

    def retried(self, host: str, why: str) -> None:
        self.retries.append(why)


@asynccontextmanager
async def registry_client(
    authorizer: Authorizer | None = None,
    *,
    allow: Iterable[str] = LOOPBACK,
    resolver: AbstractResolver | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock | None = None,
    observer: UpstreamObserver | None = None,
    known: Known = lambda *_: None,
) -> AsyncIterator[RegistryClient]:
    """A registry client, anonymous unless told otherwise; every pause is half its ceiling."""
    client = RegistryClient(
        authorizer=authorizer or FixedAuthorizer(None),
        addresses=AddressPolicy(allow),
        clock=clock or FakeClock(auto=True),
        timeouts=timeouts,
        retry=RetryPolicy(chance=lambda: 0.5),
        observer=observer or NullObserver(),
        resolver=resolver,
        known=known,
    )
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def token_client(
    *, allow: Iterable[str] = LOOPBACK, resolver: AbstractResolver | None = None
) -> AsyncIterator[TokenClient]:
    """A token client with three attempts."""
    client = TokenClient(
        addresses=AddressPolicy(allow),
        clock=FakeClock(auto=True),
        retry=RetryPolicy(attempts=3, chance=lambda: 0.5),
        resolver=resolver,
    )
    try:
        yield client
    finally:
        await client.close()


async def read_blob(
    client: RegistryClient, connection: Connection, digest: Digest, *, offset: int = 0
) -> bytes:
    """A blob of APP, whole or from `offset` on."""
    async with client.blob(connection, APP, digest, offset=offset) as body:
        return await poured(body)
