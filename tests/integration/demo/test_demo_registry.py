"""The demo's upstream, read through the real client."""

from collections.abc import AsyncIterator

import pytest

from facade.clock import SystemClock
from facade.demo.image import make_image
from facade.demo.registry import TOKEN_SECONDS, DemoRegistry
from facade.errors import Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.token import BasicCredentials
from facade.upstream.token_client import TokenClient
from tests.support.authorizers import TokenAuthorizer
from tests.support.clock import FakeClock

APP = Repository("demo/app")
IMAGE = make_image(payload_bytes=5000)
LOOPBACK = AddressPolicy(["127.0.0.0/8"])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def registry(clock: FakeClock) -> AsyncIterator[DemoRegistry]:
    registry = DemoRegistry(username="demo", password=Secret("pw"), key=b"k" * 32, clock=clock)
    registry.add(str(APP), IMAGE, "v1", "v2")
    await registry.start()
    yield registry
    await registry.close()


@pytest.fixture
async def tokens() -> AsyncIterator[TokenClient]:
    client = TokenClient(addresses=LOOPBACK, clock=SystemClock())
    yield client
    await client.close()


@pytest.fixture
async def client(tokens: TokenClient) -> AsyncIterator[RegistryClient]:
    authorizer = TokenAuthorizer(tokens, BasicCredentials("demo", Secret("pw")))
    client = RegistryClient(authorizer=authorizer, addresses=LOOPBACK, clock=SystemClock())
    yield client
    await client.close()


def connection(registry: DemoRegistry) -> Connection:
    settings = ConnectionSettings(insecure=True)
    return Connection("demo", RegistryHost.parse(registry.host), "static", settings=settings)


async def test_everything_is_readable_with_a_token_and_counted(
    registry: DemoRegistry, client: RegistryClient
) -> None:
    demo = connection(registry)
    await client.ping(demo)
    assert [page async for page in client.tags(demo, APP)] == [["v1", "v2"]]
    references: list[Digest | Tag] = [Tag("v1"), *IMAGE.manifests]
    for reference in references:
        await client.manifest(demo, APP, reference)
    for digest, data in IMAGE.blobs.items():
        assert await client.blob_size(demo, APP, digest) == len(data)
        for offset in (0, len(data) // 2):
            async with client.blob(demo, APP, digest, offset=offset) as body:
                assert b"".join([part async for part in body.chunks()]) == data[offset:]
    assert registry.requests == {"token": 2, "tags": 1, "manifest": 4, "blob": 10}


async def test_what_it_does_not_hold_is_404(registry: DemoRegistry, client: RegistryClient) -> None:
    with pytest.raises(Upstream, match="MANIFEST_UNKNOWN") as caught:
        await client.manifest(connection(registry), APP, Tag("v9"))
    assert caught.value.reason is Reason.UPSTREAM_NOT_FOUND
    assert await client.blob_size(connection(registry), APP, Digest.of(b"no")) is None


async def test_a_wrong_password_gets_no_token(registry: DemoRegistry, tokens: TokenClient) -> None:
    authorizer = TokenAuthorizer(tokens, BasicCredentials("demo", Secret("nope")))
    client = RegistryClient(authorizer=authorizer, addresses=LOOPBACK, clock=SystemClock())
    with pytest.raises(Upstream, match="wrong user name or password"):
        await client.ping(connection(registry))
    await client.close()
    assert registry.requests["token"] == 0


async def test_an_expired_token_is_replaced(
    registry: DemoRegistry, client: RegistryClient, clock: FakeClock
) -> None:
    await client.manifest(connection(registry), APP, Tag("v1"))
    clock.advance(TOKEN_SECONDS + 1)
    await client.manifest(connection(registry), APP, Tag("v1"))
    assert registry.requests == {"token": 2, "manifest": 2}
