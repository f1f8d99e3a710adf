"""What an operator does with connections: connect, list, change, remove, try.

Guarantees: nothing is stored that could not work: the provider has checked what was offered, the
settings make sense, and the registry's address is one that may be connected to (or the refusal
says which line to add). `test` tells in words what works; what it says never holds a secret.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit

from facade.clock import Clock
from facade.control.connections.model import StoredConnection
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.model import Offered, Provider
from facade.errors import FacadeError, Invalid, Upstream
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository, Tag
from facade.upstream.addresses import AddressPolicy
from facade.upstream.connection import Connection, ConnectionSettings
from facade.wings import ConnectionUsed

RESOLVE_SECONDS = 5.0
MAX_AUTH_HOSTS = 16
MAX_CA_CHARS = 256 * 1024

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → addresses; raises OSError."""


class Providers(Protocol):
    """`control.credentials.providers.Providers`."""

    def get(self, name: str) -> Provider: ...


class Broker(Protocol):
    """`control.credentials.broker.TokenBroker`."""

    def forget(self, connection_id: str) -> None: ...

    def scheme(self, connection: Connection) -> str | None: ...


class Registry(Protocol):
    """`upstream.client.RegistryClient`, as far as a test needs it."""

    async def ping(self, connection: Connection) -> None: ...

    async def manifest(
        self, connection: Connection, repository: Repository, reference: Tag
    ) -> object: ...


class TagLister(Protocol):
    """Lists some tags of a repository, newest-likely first (`control.catalog.browse.Browse`)."""

    async def first_tags(self, connection: Connection, repository: Repository) -> Sequence[str]: ...


async def system_resolve(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


class Connections:
    """See the module."""

    def __init__(
        self,
        *,
        store: ConnectionStore,
        providers: Providers,
        broker: Broker,
        registry: Registry,
        tags: TagLister,
        addresses: AddressPolicy,
        clock: Clock,
        resolve: Resolve = system_resolve,
    ) -> None:
        self._store = store
        self._providers = providers
        self._broker = broker
        self._registry = registry
        self._tags = tags
        self._addresses = addresses
        self._clock = clock
        self._resolve = resolve

    async def add(
        self, provider: str, offered: Offered, settings: ConnectionSettings, *, actor: str
    ) -> StoredConnection:
        """Connect a registry.

        Raises Invalid (what is offered), Conflict (connected already), Upstream (an address that
        may not be connected to, with the line to add).
        """
        prepared = self._providers.get(provider).prepare(offered)
        checked = check_settings(settings)
        await self._check_address(offered.host, checked)
        return await self._store.add(offered.host, provider, prepared, checked, actor=actor)

    def list(self) -> Sequence[StoredConnection]:
        """All connections, by host."""
        return self._store.list()

    def get(self, host: RegistryHost) -> StoredConnection:
        """One connection. Raises NotFound."""
        return self._store.get(host)

    def note(self, stored: StoredConnection) -> str | None:
        """What an operator should know about a connection, in sentences."""
        notes = []
        if stored.connection.settings.insecure:
            notes.append("Plain http: whoever is on the way can read and change everything.")
        is_static = stored.connection.provider == "static"
        if is_static and self._broker.scheme(stored.connection) == "basic":
            notes.append(
                "This registry has no token service: the password itself goes with each request "
                "(to the registry only; it is kept in no cache)."
            )
        return " ".join(notes) or None

    async def change(
        self,
        host: RegistryHost,
        *,
        offered: Offered | None,
        settings: ConnectionSettings | None,
    ) -> StoredConnection:
        """Replace the credentials (whole; the user name stays if none is given) or settings.

        Settings that would show a stored secret to somebody new are taken together with the
        secret alone: who may change a connection may not so get to read what another typed.

        Raises NotFound, Invalid, Upstream as `add`.
        """
        stored = self._store.get(host)
        if offered is None and settings is None:
            raise Invalid("Nothing to change was given.")
        prepared = None
        if offered is not None:
            provider = stored.connection.provider
            if provider == "static" and not offered.username:
                offered = replace(offered, username=stored.username)
            prepared = self._providers.get(provider).prepare(offered)
        if settings is not None:
            settings = check_settings(settings)
            if offered is None and stored.sealed is not None:
                _check_same_audience(stored.connection.settings, settings, host)
            await self._check_address(host, settings)
        return await self._store.change(host, prepared=prepared, settings=settings)

    async def remove(self, host: RegistryHost) -> StoredConnection:
        """Forget it, with its secret and tokens. Raises NotFound."""
        return await self._store.remove(host)

    async def test(self, host: RegistryHost, repository: Repository | None) -> str:
        """Try it now, with nothing from a cache; what works, in words.

        Raises NotFound, Upstream, Denied: what does not work, in words.
        """
        connection = self._store.get(host).connection
        self._broker.forget(connection.id)
        try:
            words = [await self._ping(connection)]
            if repository is None:
                words.append("Name a repository to see whether it may be listed and pulled.")
            else:
                words += await self._read(connection, repository)
        except FacadeError as error:
            await self._used(connection, error.message)
            raise
        await self._used(connection, None)
        return " ".join(words)

    async def _ping(self, connection: Connection) -> str:
        await self._registry.ping(connection)
        scheme = self._broker.scheme(connection)
        way = "over plain http" if connection.settings.insecure else "and its certificate is valid"
        if scheme is None:
            who = "It asked for no credentials, so none were tried."
        elif connection.provider == "anonymous":
            who = "It lets anybody in, with a token."
        else:
            who = "It accepts the credentials."
        return f"{connection.host} answers {way}. {who}"

    async def _read(self, connection: Connection, repository: Repository) -> Sequence[str]:
        """May it list, may it pull? Pulling is what counts: listing alone failing is no failure."""
        words = []
        tags: Sequence[str] = ()
        try:
            tags = await self._tags.first_tags(connection, repository)
            words.append(f"{repository} may be listed ({len(tags)} tags read).")
        except Upstream as error:
            words.append(f"{repository} may not be listed: {error.message}")
        tag = Tag.parse(tags[0] if tags else "latest")
        await self._registry.manifest(connection, repository, tag)
        words.append(f"It may be pulled (tried {tag}).")
        return words

    async def _used(self, connection: Connection, error: str | None) -> None:
        await self._store.used([ConnectionUsed(connection.id, self._clock.time(), error)])

    async def _check_address(self, host: RegistryHost, settings: ConnectionSettings) -> None:
        """Refuse an address that could never be connected to; a name may get its address later."""
        if settings.proxy is not None:
            return  # the proxy resolves, and enforces the rules
        parts = urlsplit(f"//{host.endpoint}")
        name = parts.hostname or ""
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await self._resolve(name, parts.port or 443)
        except (OSError, TimeoutError):
            return
        for address in found:
            self._addresses.check(address, name)


def check_settings(settings: ConnectionSettings) -> ConnectionSettings:
    """Settings in their canonical form. Raises Invalid, saying what is wrong."""
    if len(settings.auth_hosts) > MAX_AUTH_HOSTS:
        raise Invalid(f"At most {MAX_AUTH_HOSTS} hosts can be named with --auth-host.")
    hosts = tuple(dict.fromkeys(str(RegistryHost.parse(host)) for host in settings.auth_hosts))
    if settings.ca_pem is not None:
        _check_ca(settings.ca_pem)
    if settings.proxy is not None:
        _check_proxy(settings.proxy)
    return replace(settings, auth_hosts=hosts)


def _check_same_audience(
    old: ConnectionSettings, new: ConnectionSettings, host: RegistryHost
) -> None:
    """That a secret given under `old` meets nobody new under `new`. Raises Invalid."""
    if (
        (new.insecure and not old.insecure)
        or (new.proxy is not None and new.proxy != old.proxy)
        or (new.ca_pem is not None and new.ca_pem != old.ca_pem)
        or not set(new.auth_hosts) <= set(old.auth_hosts)
    ):
        raise Invalid(
            f"With these settings the secret of {host} could reach somebody for whom it was not "
            "given. Send it again along with them: facade registry rotate"
        )


def _check_ca(pem: str) -> None:
    if "PRIVATE KEY" in pem:
        raise Invalid("The CA file holds a private key; give the certificates alone.")
    try:
        if len(pem) > MAX_CA_CHARS:
            raise ValueError("too long")
        if not pem.isascii():
            raise ValueError("not ASCII")  # RFC 7468; a comment in another script does it too
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise Invalid(
            "The CA file holds no certificates in PEM form (plain ASCII) that can be read."
        ) from error


def _check_proxy(proxy: str) -> None:
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise Invalid("Write the proxy as a URL, like http://proxy.example:3128.")
    if parts.username is not None or parts.password is not None:
        raise Invalid(
            "The proxy's URL holds credentials, which are not supported; nothing was stored."
        )
