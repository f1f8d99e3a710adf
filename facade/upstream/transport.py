"""One HTTP request to an upstream, over checked connections. Only here and in `direct` is a socket to it.

Guarantees: the address rules are applied to the very address that is being connected to, IP
literals and proxies included; nothing is decompressed, redirected, retried, cached or remembered
in cookies; connections with a CA of their own never share a TLS connection with others. Whatever
goes wrong on the way is a `Broken`, in words. (One new connection is made when a GET finds its own
dropped, as kept-alive ones are.) Does not read bodies: `body` does.

What has neither body, proxy nor watchers goes out through `direct`, all else through aiohttp's session,
over the same connections.
"""

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

import facade
from facade.errors import Upstream
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.connection import Connection
from facade.upstream.direct import (
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    READ_BUFFER_BYTES,
    DirectRequests,
)
from facade.upstream.failures import AddressRefused, broken
from facade.upstream.retry import Timeouts
from facade.upstream.tls import TlsContexts

KEEP_ALIVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request: `authorization` and `secret_form` are revealed only when it is sent.

    Arguments:
        headers: not shown either: a cloud's session token travels in one.
        secret_form: the body; a form, unless `headers` names another Content-Type.
    """

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: Secret | None = None
    secret_form: Secret | None = None


class Transport:
    """The HTTP client under both upstream clients.

    Arguments:
        addresses: which addresses may be connected to.
        timeouts: `connect` is used here.
        resolver: how names are resolved; the system's when None. Closed with the transport.
        watchers: aiohttp's own hooks around each request, for traces.
    """

    def __init__(
        self,
        *,
        addresses: AddressPolicy,
        timeouts: Timeouts,
        resolver: AbstractResolver | None = None,
        watchers: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        self._watchers = watchers
        self._addresses = addresses
        self._timeouts = timeouts
        self._resolver = resolver
        self._checked: _CheckingResolver | None = None
        self._opened: tuple[DirectRequests, aiohttp.ClientSession] | None = None
        self._contexts = TlsContexts()

    async def close(self) -> None:
        """Close all connections; the transport is not used afterwards."""
        if self._opened is not None:
            await self._opened[1].close()
        if self._checked is not None:
            await self._checked.close()

    async def send(
        self, connection: Connection, outgoing: Outgoing, *, within: float
    ) -> aiohttp.ClientResponse:
        """Send one request and return its answer's head; the caller closes it.

        Arguments:
            connection: on whose behalf; its CA, proxy and scheme apply.
            within: seconds until the head must be there.

        Raises Broken, or Upstream when the address rules refuse the host.
        """
        headers = {
            "User-Agent": f"facade/{facade.__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **outgoing.headers,
        }
        if outgoing.authorization is not None:
            headers["Authorization"] = outgoing.authorization.reveal()
        data = None
        if outgoing.secret_form is not None:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
            data = outgoing.secret_form.reveal().encode()
        try:
            context = await self._contexts.get(connection, outgoing.url)
            direct, session = self._open()
            if data is None and connection.settings.proxy is None and not self._watchers:
                return await direct.send(
                    outgoing.method, outgoing.url, headers, context=context, within=within
                )
            async with asyncio.timeout(within):
                return await session.request(
                    outgoing.method,
                    outgoing.url,
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                    ssl=context,
                    proxy=connection.settings.proxy,
                )
        except (aiohttp.ClientError, OSError) as error:
            raise broken(outgoing.url, error) from error

    def _open(self) -> tuple[DirectRequests, aiohttp.ClientSession]:
        # Made at the first request, since a connector belongs to a running loop.
        if self._opened is None:
            self._checked = _CheckingResolver(
                self._resolver or aiohttp.DefaultResolver(), self._addresses
            )
            connector = aiohttp.TCPConnector(
                resolver=self._checked,
                socket_factory=self._socket,
                limit=0,  # transfers are bounded per connection by those who ask for them
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            )
            session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=READ_BUFFER_BYTES,
                max_field_size=MAX_FIELD_BYTES,
                max_line_size=MAX_FIELD_BYTES,
                max_headers=MAX_FIELDS,
                trace_configs=list(self._watchers),
            )
            self._opened = DirectRequests(connector, self._timeouts.connect), session
        return self._opened

    def _socket(
        self, info: tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, Any]
    ) -> socket.socket:
        """Make the socket for one address, if the rules allow it. The check that counts."""
        family, kind, protocol, _, address = info
        _refuse(self._addresses, address[0], address[0])
        return socket.socket(family, kind, protocol)


class _CheckingResolver(AbstractResolver):
    """Leaves out refused addresses, so that a name with none left is refused in clear words."""

    def __init__(self, inner: AbstractResolver, addresses: AddressPolicy) -> None:
        self._inner = inner
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await self._inner.resolve(host, port, family)
        allowed = [result for result in results if self._addresses.allows(result["host"])]
        if results and not allowed:
            _refuse(self._addresses, results[0]["host"], host)
        return allowed

    async def close(self) -> None:
        await self._inner.close()


def _refuse(addresses: AddressPolicy, address: str, host: str) -> None:
    try:
        addresses.check(address, host)
    except Upstream as error:
        raise AddressRefused(error) from error
