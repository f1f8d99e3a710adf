"""The cloud client keeps the rules of the checked transport, and asks again when that may help."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from facade.clock import SystemClock
from facade.errors import Upstream
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.cloud import CloudRequest
from facade.upstream.cloud_client import CloudClient
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.retry import RetryPolicy, Timeouts
from tests.support.clock import FakeClock
from tests.support.docker_registry import free_port
from tests.support.raw_http import Data, Handler, RawHttpServer, Reply, Seen
from tests.support.resolver import FakeResolver

CONNECTION = Connection("c1", RegistryHost("gcr.io"), "google")


class Cloud:
    """Answers in order; the last answer stays."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = list(replies)
        self.seen: list[Seen] = []

    async def __call__(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def _client(
    *,
    allow: tuple[str, ...] = ("127.0.0.0/8",),
    resolver: FakeResolver | None = None,
    clock: FakeClock | None = None,
) -> CloudClient:
    return CloudClient(
        addresses=AddressPolicy(allow),
        clock=clock or FakeClock(auto=True),
        retry=RetryPolicy(attempts=3, chance=lambda: 0.5),
        resolver=resolver,
    )


@asynccontextmanager
async def _serving(
    handler: Handler, client: CloudClient | None = None
) -> AsyncIterator[tuple[CloudClient, str]]:
    server, client = RawHttpServer(handler), client or _client()
    await server.start()
    try:
        yield client, f"http://127.0.0.1:{server.port}/token"
    finally:
        await client.close()
        await server.close()


async def test_what_is_sent_and_what_comes_back() -> None:
    cloud = Cloud(Reply(200, (("X-Thing", "1"),), Data(b"answer")))
    async with _serving(cloud) as (client, url):
        request = CloudRequest("POST", url, {"Content-Type": "application/x"}, Secret('{"a":1}'))
        answer = await client.send(CONNECTION, request)
        assert (answer.status, answer.headers["x-thing"], answer.body) == (200, "1", b"answer")
        [seen] = cloud.seen
        assert (seen.method, seen.path, seen.body) == ("POST", "/token", b'{"a":1}')
        assert seen.headers["content-type"] == "application/x"
        assert "answer" not in repr(answer)


async def test_a_body_without_a_type_is_a_form() -> None:
    cloud = Cloud(Reply(200))
    async with _serving(cloud) as (client, url):
        await client.send(CONNECTION, CloudRequest("POST", url, {}, Secret("a=b")))
        assert cloud.seen[0].headers["content-type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_may_be_different_next_time_is_tried_again(status: int) -> None:
    cloud = Cloud(Reply(status, (("Retry-After", "2"),)), Reply(raw=b""), Reply(200))
    clock = FakeClock(auto=True)
    async with _serving(cloud, _client(clock=clock)) as (client, url):
        answer = await client.send(CONNECTION, CloudRequest("POST", url))
        assert answer.status == 200
        assert len(cloud.seen) == 3
        assert clock.slept[0] == 2.0


async def test_a_failure_that_stays_is_the_answer() -> None:
    cloud = Cloud(Reply(503))
    async with _serving(cloud) as (client, url):
        assert (await client.send(CONNECTION, CloudRequest("POST", url))).status == 503
        assert len(cloud.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_is_asked_for_once(status: int) -> None:
    cloud = Cloud(Reply(status))
    async with _serving(cloud) as (client, url):
        assert (await client.send(CONNECTION, CloudRequest("POST", url))).status == status
        assert len(cloud.seen) == 1


async def test_a_redirect_is_not_followed() -> None:
    cloud = Cloud(Reply(307, (("Location", "http://127.0.0.1:1/steal"),)))
    async with _serving(cloud) as (client, url):
        assert (await client.send(CONNECTION, CloudRequest("POST", url))).status == 307
        assert len(cloud.seen) == 1


async def test_an_endless_answer_is_cut() -> None:
    cloud = Cloud(Reply(200, content=Data(b"x" * 70_000)))
    async with _serving(cloud) as (client, url):
        with pytest.raises(Upstream, match="more than 65536 bytes"):
            await client.send(CONNECTION, CloudRequest("POST", url))


async def test_an_inner_address_is_refused_at_connect_time() -> None:
    resolver = FakeResolver({"sts.acme.example": "10.0.0.7"})
    client = _client(allow=(), resolver=resolver)
    with pytest.raises(Upstream, match="allow_cidrs"):
        await client.send(CONNECTION, CloudRequest("POST", "http://sts.acme.example/"))
    await client.close()


async def test_an_endpoint_that_is_down_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    client = _client()
    with pytest.raises(Upstream, match="cannot be reached") as caught:
        await client.send(CONNECTION, CloudRequest("POST", url))
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    await client.close()


async def test_a_stalled_endpoint_is_given_up() -> None:
    cloud = Cloud(Reply(200, delay=60))
    impatient = CloudClient(
        addresses=AddressPolicy(("127.0.0.0/8",)),
        clock=SystemClock(),
        timeouts=Timeouts(first_byte=0.2),
        retry=RetryPolicy(attempts=1),
    )
    async with _serving(cloud, impatient) as (client, url):
        with pytest.raises(Upstream, match="did not answer in time"):
            await client.send(CONNECTION, CloudRequest("POST", url))


async def test_the_connections_proxy_is_used() -> None:
    proxy = Cloud(Reply(200, content=Data(b"by proxy")))
    async with _serving(proxy) as (client, url):
        settings = ConnectionSettings(proxy=url)
        connection = Connection("c1", RegistryHost("gcr.io"), "google", settings=settings)
        request = CloudRequest("POST", "http://sts.acme.example/")
        assert (await client.send(connection, request)).body == b"by proxy"
        assert proxy.seen[0].headers["host"] == "sts.acme.example"
