"""What a listener makes for each connection, and what all its connections share.

Guarantees: every connection asks for the current TLS context: reload is an assignment. Where balancers
are listed, who comes from one is asked for its header first; where none are, nothing is between
the socket and TLS.
"""

import asyncio
from collections.abc import Callable

from facade.serving.identity.handshake import NullHooks, TlsHooks
from facade.serving.identity.limits import TlsLimits
from facade.serving.identity.listener import Listener, Network
from facade.serving.identity.openssl import TlsContext
from facade.serving.identity.proxied import ProxiedProtocol
from facade.serving.identity.tls_transport import TlsServerProtocol


class TlsProtocolFactory:
    """Makes a protocol per connection, for `loop.create_server(…, ssl=None)`."""

    def __init__(
        self,
        context: Callable[[], TlsContext],
        app_factory: Callable[[], asyncio.Protocol],
        *,
        hooks: TlsHooks,
        limits: TlsLimits,
        balancers: tuple[Network, ...] = (),
    ) -> None:
        self._listener = Listener(context, app_factory, hooks, limits, balancers=balancers)

    def __call__(self) -> asyncio.BufferedProtocol:
        if self._listener.balancers:
            return ProxiedProtocol(self._listener)
        return TlsServerProtocol(self._listener)

    @property
    def connections(self) -> int:
        """How many are open just now, those in their handshake and farewell included."""
        return len(self._listener.transports)

    @property
    def handshakes(self) -> int:
        """How many of these are in their handshake."""
        return len(self._listener.half_open)

    def abort(self) -> None:
        """Drop every connection that is still there: the last step of a shutdown."""
        for transport in tuple(self._listener.transports):
            transport.abort()


def tls_protocol_factory(
    context: Callable[[], TlsContext],
    app_factory: Callable[[], asyncio.Protocol],
    *,
    hooks: TlsHooks | None = None,
    limits: TlsLimits | None = None,
    balancers: tuple[Network, ...] = (),
) -> TlsProtocolFactory:
    """A protocol factory for `loop.create_server(…, ssl=None)`.

    Arguments:
        context: gives the current server context, for each new connection.
        app_factory: makes the protocol behind TLS (an `aiohttp.web.Server`).
        hooks: told of every handshake's outcome.
        balancers: networks whose connections begin with a PROXY v2 header, and must.
    """
    return TlsProtocolFactory(
        context,
        app_factory,
        hooks=hooks or NullHooks(),
        limits=limits or TlsLimits(),
        balancers=balancers,
    )
