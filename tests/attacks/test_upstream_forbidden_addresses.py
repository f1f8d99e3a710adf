"""A connection, a redirect, a realm or a DNS answer leads to where nobody may be sent (SSRF)."""

import asyncio
import socket

import pytest
from aiohttp.abc import ResolveResult

from facade.errors import Upstream
from facade.oci.host import RegistryHost
from facade.oci.reference import Tag
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, ConnectionSettings, Scope
from facade.upstream.token import BasicCredentials
from tests.support.authorizers import FixedAuthorizer
from tests.support.misbehaviour import redirect
from tests.support.registry import Registry
from tests.support.resolver import FakeResolver
from tests.support.upstream_client import APP, registry_client, token_client

NOWHERE: tuple[str, ...] = ()


def to(host: RegistryHost, **settings: object) -> Connection:
    values = ConnectionSettings(insecure=True, **settings)  # type: ignore[arg-type]  # by name
    return Connection("c", host, "static", settings=values)


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]"],
)
async def test_a_literal_address_of_this_machine(name: str) -> None:
    async with Registry() as victim, registry_client(allow=NOWHERE) as client:
        with pytest.raises(Upstream, match="allow_cidrs") as caught:
            await client.ping(to(RegistryHost.parse(f"{name}:{victim.port}")))
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert victim.connections == 0


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "168.63.129.16"])
async def test_cloud_metadata_by_address(address: str) -> None:
    async with registry_client(allow=NOWHERE) as client:
        with pytest.raises(Upstream, match="nothing was sent"):
            await client.ping(to(RegistryHost.parse(f"{address}:80")))


async def test_a_name_that_resolves_to_this_machine() -> None:
    names = FakeResolver({"registry.example": "127.0.0.1", "localhost": "127.0.0.1"})
    async with Registry() as victim, registry_client(allow=NOWHERE, resolver=names) as client:
        for name in ("registry.example", "localhost"):
            with pytest.raises(Upstream, match=rf'{name} is at 127\.0\.0\.1.*"127.0.0.1/32"'):
                await client.ping(to(RegistryHost(name, victim.port)))
        assert victim.connections == 0


async def test_a_name_with_one_good_and_one_forbidden_address() -> None:
    names = FakeResolver()
    names.set("registry.example", "127.0.0.2", "127.0.0.1")
    async with (
        Registry() as victim,
        registry_client(allow=["127.0.0.2/32"], resolver=names) as client,
    ):
        with pytest.raises(Upstream, match="cannot be reached"):
            await client.ping(to(RegistryHost("registry.example", victim.port)))
        assert victim.connections == 0


async def test_dns_rebinding_between_two_requests() -> None:
    names = FakeResolver()
    names.set_sequence("registry.example", "127.0.0.1", "127.0.0.2")
    async with Registry() as registry:
        async with registry_client(allow=["127.0.0.1/32"], resolver=names) as client:
            await client.ping(to(RegistryHost("registry.example", registry.port)))
        async with registry_client(allow=["127.0.0.1/32"], resolver=names) as client:
            with pytest.raises(Upstream, match=r"is at 127\.0\.0\.2"):
                await client.ping(to(RegistryHost("registry.example", registry.port)))
        assert registry.connections == 1


async def test_an_answer_that_changes_between_check_and_use() -> None:
    """The resolver's results are looked at once; the socket is made for what is then used."""

    class Shifty(FakeResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            results = await super().resolve(host, port, family)
            asyncio.get_running_loop().call_soon(results[0].__setitem__, "host", "127.0.0.1")
            kept.append(results[0])
            return results

    kept: list[ResolveResult] = []
    names = Shifty({"registry.example": "127.0.0.2"})
    async with (
        Registry() as victim,
        registry_client(allow=["127.0.0.2/32"], resolver=names) as client,
    ):
        with pytest.raises(Upstream):
            await client.ping(to(RegistryHost("registry.example", victim.port)))
        assert kept[0]["host"] == "127.0.0.1"
        assert victim.connections == 0


async def test_a_redirect_to_this_machine() -> None:
    names = FakeResolver({"inside.example": "127.0.0.2"})
    async with (
        Registry() as registry,
        registry_client(
            FixedAuthorizer("Basic abc"), allow=["127.0.0.1/32"], resolver=names
        ) as client,
    ):
        for target in ("127.0.0.2", "inside.example", "[::1]", "[::ffff:7f00:2]"):
            registry.script("/v2/", redirect(f"http://{target}:{registry.port}/latest/meta-data"))
            with pytest.raises(Upstream, match="allow_cidrs"):
                await client.ping(registry.connection())
            registry.behave()
        assert registry.count() == 4


@pytest.mark.parametrize("target", ["2130706434", "0x7f000002", "127.2", "0177.0.0.2"])
async def test_odd_spellings_of_an_address(target: str) -> None:
    async with Registry() as registry, registry_client(allow=["127.0.0.1/32"]) as client:
        registry.script("/v2/", redirect(f"http://{target}:{registry.port}/v2/x/manifests/v1"))
        with pytest.raises(Upstream, match=r"allow_cidrs|not valid"):
            await client.ping(registry.connection())
        assert registry.count() == 1


async def test_a_realm_on_a_forbidden_address() -> None:
    async with Registry() as victim, token_client(allow=NOWHERE) as exchange:
        challenge = Challenge("bearer", {"realm": f"{victim.url}/token"})
        credentials = BasicCredentials("ann", Secret("pw"))
        with pytest.raises(Upstream, match="allow_cidrs"):
            await exchange.exchange(to(victim.host), challenge, Scope(APP), credentials)
        assert victim.connections == 0


async def test_a_proxy_setting_that_points_inside() -> None:
    """No connection setting opens a forbidden address, that of a proxy neither."""
    names = FakeResolver({"registry.example": "1.1.1.1"})
    async with Registry() as victim, registry_client(allow=NOWHERE, resolver=names) as client:
        connection = to(RegistryHost.parse("registry.example:5000"), proxy=victim.url)
        with pytest.raises(Upstream, match="allow_cidrs"):
            await client.manifest(connection, APP, Tag("v1"))
        assert victim.connections == 0
