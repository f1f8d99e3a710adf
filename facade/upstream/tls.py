"""Which certificates an upstream is believed by.

Guarantees: a connection's own CA stands in for the system's at the registry itself and is known to
no other connection; TLS 1.2 at least; host names are always checked. There is no switch that
skips verification.
"""

import asyncio
import ssl

from yarl import URL

from facade.upstream.connection import Connection
from facade.upstream.failures import Broken
from facade.upstream.redirects import same_origin

_MAX_CONTEXTS = 256


class TlsContexts:
    """Makes and keeps the TLS contexts, one per CA: connections of different CAs share none."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[str | None, bool], ssl.SSLContext] = {}

    async def get(self, connection: Connection, url: URL) -> ssl.SSLContext | bool:
        """The context to speak to `url` with, on behalf of `connection`; True for plain http.

        aiohttp speaks to a proxy of https with it too, whatever the URL: it is never left to its own.

        Raises Broken when the connection's CA certificates cannot be read.
        """
        plain = url.scheme != "https"
        if plain and not (connection.settings.proxy or "").lower().startswith("https:"):
            return True
        ca_pem = None if plain else connection.settings.ca_pem
        # At the registry the connection's CA is the only one; its storage and its token service
        # may live elsewhere, under public certificates.
        only = ca_pem is not None and same_origin(url, URL(connection.base_url))
        context = self._contexts.get((ca_pem, only))
        if context is None:
            # In a thread: to read the system's hundred authorities takes 20 to 40 ms.
            context = await asyncio.to_thread(_make_context, connection, ca_pem, only=only)
            if len(self._contexts) >= _MAX_CONTEXTS:
                self._contexts.pop(next(iter(self._contexts)))
            self._contexts[ca_pem, only] = context
        return context


def _make_context(connection: Connection, ca_pem: str | None, *, only: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=ca_pem if only else None)
        if ca_pem is not None and not only:
            context.load_verify_locations(cadata=ca_pem)
    except (ssl.SSLError, ValueError) as error:
        raise Broken(
            f"The CA certificates given for {connection.host} cannot be read. Give PEM "
            "certificates with --ca-file.",
            reached=False,
            transient=False,
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
