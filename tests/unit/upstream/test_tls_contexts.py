"""Which context an upstream request is given."""

import asyncio
import ssl

import pytest
from yarl import URL

from facade.oci.host import RegistryHost
from facade.upstream.connection import Connection, ConnectionSettings
from facade.upstream.tls import TlsContexts
from tests.support.pki import Authority


def _connection(proxy: str | None = None, ca_pem: str | None = None) -> Connection:
    settings = ConnectionSettings(proxy=proxy, ca_pem=ca_pem)
    return Connection("c", RegistryHost.parse("registry.example"), "anonymous", settings=settings)


@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128"])
async def test_plain_http_needs_none(proxy: str | None) -> None:
    url = URL("http://registry.example/v2/")
    assert await TlsContexts().get(_connection(proxy), url) is True


@pytest.mark.parametrize("proxy", ["https://proxy.example:3128", "HTTPS://proxy.example:3128"])
async def test_a_proxy_of_https_is_believed_by_the_systems_authorities(proxy: str) -> None:
    """aiohttp uses the request's context for the proxy, and would use one that trusts nobody."""
    pem = Authority.root().pem.decode()
    connection = _connection(proxy=proxy, ca_pem=pem)
    contexts = TlsContexts()
    context = await contexts.get(connection, URL("http://registry.example/v2/"))
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    own = await contexts.get(connection, URL("https://registry.example/v2/"))
    assert own is not context
    system = await contexts.get(_connection(), URL("https://elsewhere.example/"))
    assert system is context


async def test_it_is_made_beside_the_loop() -> None:
    """Reading the system's authorities takes longer than a callback may."""
    contexts, url = TlsContexts(), URL("https://registry.example/v2/")
    making = asyncio.create_task(contexts.get(_connection(), url))
    await asyncio.sleep(0)
    assert not making.done()
    assert await making is await contexts.get(_connection(), url)
