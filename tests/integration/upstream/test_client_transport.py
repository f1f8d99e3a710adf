"""TLS, names, addresses and proxies, on real sockets."""

import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from facade.clock import SystemClock
from facade.errors import Upstream
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.retry import Timeouts
from tests.support.clock import FakeClock
from tests.support.docker_registry import free_port
from tests.support.misbehaviour import header, redirect
from tests.support.pki import Authority, server_context
from tests.support.raw_http import Data, RawHttpServer, Reply, Seen
from tests.support.registry import Registry
from tests.support.resolver import FakeResolver
from tests.support.upstream_client import APP, read_blob, registry_client

NAME = "registry.example"


@pytest.fixture
def authority() -> Authority:
    return Authority.root("Registry CA")


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[Registry]:
    async with Registry(tls=server_context(authority.server(NAME)), name=NAME) as registry:
        yield registry


def resolver(**more: str) -> FakeResolver:
    return FakeResolver({NAME: "127.0.0.1", **more})


async def test_a_private_ca_is_believed_where_it_was_given(
    secure: Registry, authority: Authority
) -> None:
    async with registry_client(resolver=resolver()) as client:
        await client.ping(secure.connection(ca_pem=authority.pem.decode()))
        with pytest.raises(Upstream, match=r"cannot be verified.*--ca-file"):
            await client.ping(secure.connection())


async def test_another_ca_is_not_believed(secure: Registry) -> None:
    other = Authority.root("Another CA").pem.decode()
    async with registry_client(resolver=resolver()) as client:
        with pytest.raises(Upstream, match="cannot be verified") as caught:
            await client.ping(secure.connection(ca_pem=other))
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert secure.count() == 0


async def test_another_name_is_not_believed(authority: Authority) -> None:
    context = server_context(authority.server("other.example"))
    async with (
        Registry(tls=context, name=NAME) as registry,
        registry_client(resolver=resolver()) as client,
    ):
        with pytest.raises(Upstream, match="cannot be verified"):
            await client.ping(registry.connection(ca_pem=authority.pem.decode()))


async def test_a_ca_that_is_none_is_said() -> None:
    async with Registry() as registry, registry_client() as client:
        settings = ConnectionSettings(ca_pem="-----BEGIN CERTIFICATE-----\nno\n")
        connection = Connection("c", registry.host, "anonymous", settings=settings)
        with pytest.raises(Upstream, match="CA certificates given for"):
            await client.ping(connection)


async def test_plain_http_is_never_a_fallback() -> None:
    async with Registry() as registry, registry_client() as client:
        connection = Connection("c", registry.host, "anonymous")
        with pytest.raises(Upstream, match="--insecure"):
            await client.ping(connection)
        assert registry.requests == []


async def test_a_name_that_does_not_resolve() -> None:
    clock = FakeClock(auto=True)
    async with registry_client(resolver=FakeResolver(), clock=clock) as client:
        connection = Connection("c", RegistryHost.parse("nowhere.example"), "anonymous")
        with pytest.raises(Upstream, match=r"nowhere\.example cannot be reached") as caught:
            await client.ping(connection)
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_connecting_takes_too_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says hello
        host = RegistryHost("127.0.0.1", silent.getsockname()[1])
        async with registry_client(timeouts=Timeouts(connect=0.05)) as client:
            with pytest.raises(Upstream, match="connecting took too long") as caught:
                await client.ping(Connection("c", host, "anonymous"))
            assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_the_transport_closes_the_resolver() -> None:
    names = resolver()
    async with Registry(name=NAME) as registry, registry_client(resolver=names) as client:
        await client.ping(registry.connection())
    assert names.closed


async def test_a_redirect_to_another_port_is_followed_without_authorization() -> None:
    async with Registry() as registry, Registry() as storage, registry_client() as client:
        digest = storage.add_blob(str(APP), b"content")
        path = f"/v2/{APP}/blobs/{digest}"
        registry.script(path, redirect(storage.url + path + "?sig=a%2Bb"))
        assert await client.blob_size(registry.connection(), APP, digest) == 7
        assert storage.requests[0].query == {"sig": ["a+b"]}


async def test_a_relative_redirect_is_followed() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob("mirror/app", b"content")
        registry.script(f"/v2/{APP}/*", redirect(f"/v2/mirror/app/blobs/{digest}", 302))
        assert await read_blob(client, registry.connection(), digest) == b"content"
        assert await read_blob(client, registry.connection(), digest, offset=3) == b"tent"
        assert registry.requests[-1].headers["range"] == "bytes=3-"


async def test_long_fields_are_read_and_endless_ones_are_not() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.script("*", header("X-Long", "x" * 15_000), header("X-Long", "x" * 100_000))
        await client.ping(registry.connection())
        with pytest.raises(Upstream, match="no proper HTTP"):
            await client.ping(registry.connection())


async def test_a_proxy_carries_plain_requests() -> None:
    asked: list[str] = []

    async def proxy(seen: Seen) -> Reply:
        asked.append(seen.path)
        return Reply(200, content=Data(b"{}"))

    server = RawHttpServer(proxy)
    await server.start()
    try:
        async with registry_client(resolver=FakeResolver()) as client:
            settings = ConnectionSettings(insecure=True, proxy=f"http://127.0.0.1:{server.port}")
            host = RegistryHost.parse("far.example:5000")
            await client.ping(Connection("c", host, "anonymous", settings=settings))
        assert asked == ["http://far.example:5000/v2/"]
    finally:
        await server.close()


async def test_a_proxy_that_refuses_is_named() -> None:
    async def refuse(request: web.BaseRequest) -> web.Response:
        return web.Response(status=403)

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with registry_client(resolver=FakeResolver()) as client:
            settings = ConnectionSettings(proxy=f"http://127.0.0.1:{port}")
            host = RegistryHost.parse("far.example")
            with pytest.raises(Upstream, match="proxy did not let"):
                await client.ping(Connection("c", host, "anonymous", settings=settings))
    finally:
        await runner.cleanup()
