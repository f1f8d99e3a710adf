"""The token broker: the header to present to a registry, just now.

Guarantees: a token is presented only for the connection, revision, registry and scope that it was
obtained for; one exchange runs per key, whoever asks and leaves; a token that is about to end is
replaced ahead, and none is handed out in its last seconds; a token that the registry refused is
dropped and exchanged once for all who name it; nothing is handed out for a connection that is
gone, whatever is cached. Stored credentials are opened per use and kept nowhere.
Does not guarantee that the registry accepts what it gets.
"""

import random
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from facade.clock import Clock
from facade.control.credentials.flights import FAILURE_SECONDS, Flights
from facade.control.credentials.model import Presented, Provider, StoredSecrets
from facade.control.credentials.observer import ExchangeObserver, NullExchangeObserver
from facade.control.credentials.schemes import Schemes
from facade.control.credentials.tokens import CachedToken, TokenCache, TokenKey, TokenKind
from facade.errors import Denied, FacadeError, Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, Scope
from facade.upstream.scope import token_scope
from facade.upstream.token import BasicCredentials, TokenAnswer

_REFUSALS = frozenset({400, 401, 403})
"""Statuses with which a token service says that the credentials are no good (any more)."""
_NOTHING = Authorization(header=None)


class Connections(Protocol):
    """What the broker asks of the connection store; never slow."""

    def current(self, connection_id: str) -> Connection | None: ...

    def secrets(self, connection_id: str) -> StoredSecrets: ...


class TokenService(Protocol):
    """`facade.upstream.token_client.TokenClient`."""

    async def exchange(
        self,
        connection: Connection,
        challenge: Challenge,
        scope: Scope,
        credentials: BasicCredentials | None,
    ) -> TokenAnswer: ...


class ProviderTable(Protocol):
    """`facade.control.credentials.providers.Providers`."""

    def get(self, name: str) -> Provider: ...


class TokenBroker:
    """Implements `facade.upstream.connection.Authorizer`.

    Arguments:
        chance: numbers in [0, 1), for the jitter of refreshes.
    """

    def __init__(
        self,
        *,
        connections: Connections,
        providers: ProviderTable,
        tokens: TokenService,
        cache: TokenCache,
        clock: Clock,
        chance: Callable[[], float] = random.random,
        observer: ExchangeObserver | None = None,
    ) -> None:
        self._connections = connections
        self._providers = providers
        self._tokens = tokens
        self._cache = cache
        self._clock = clock
        self._chance = chance
        self._observer = observer or NullExchangeObserver()
        self._schemes = Schemes()
        self._flights = Flights(clock)
        self._shown: dict[str, str] = {}  # connection id → host whose token's end is shown

    async def close(self) -> None:
        """Stop running exchanges."""
        await self._flights.close()

    def forget(self, connection_id: str) -> None:
        """Forget what was learned and cached for a connection: it changed, or is gone."""
        self._schemes.forget(connection_id)
        self._flights.forget(connection_id)
        self._cache.forget(connection_id)
        if (host := self._shown.pop(connection_id, None)) is not None:
            self._observer.token_expires(host, None)

    def scheme(self, connection: Connection) -> str | None:
        """What the registry wants, `basic` or `bearer`, once it has said; for people."""
        known = self._schemes.known(connection, Scope(None), self._clock.monotonic())
        return None if known is None else known.scheme

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        current = self._current(connection)
        if challenge:
            self._schemes.learn(current, scope, challenge)
        known = self._schemes.known(current, scope, self._clock.monotonic())
        provider = self._providers.get(current.provider)
        if known is None:
            if not provider.eager:
                return _NOTHING  # the registry will say what it wants
            return await self._basic(current, provider, refused)
        if known.scheme == "basic":
            return await self._basic(current, provider, refused)
        return await self._bearer(current, provider, known, scope, refused)

    def _current(self, connection: Connection) -> Connection:
        current = self._connections.current(connection.id)
        if current is None:
            raise Denied(
                f"{connection.host} is not connected any more.", reason=Reason.HOST_NOT_CONNECTED
            )
        return current

    async def _basic(
        self, connection: Connection, provider: Provider, refused: str | None
    ) -> Authorization:
        if not provider.exchanges:
            presented = await self._stored(connection, provider)
            token_id = f"{connection.id}:{connection.revision}"
        else:
            token = await self._cloud(connection, provider, refused)
            presented, token_id = _presented(token), token.id
        if presented.basic is None:
            raise Upstream(
                f"{connection.host} wants a user name and a password, and is connected without "
                f"any. Connect it with: facade registry add {connection.host} --username …",
                reason=Reason.UPSTREAM_REFUSED,
                status=401,
            )
        return Authorization(presented.basic.header, token_id, presented.expires_at)

    async def _bearer(
        self,
        connection: Connection,
        provider: Provider,
        challenge: Challenge,
        scope: Scope,
        refused: str | None,
    ) -> Authorization:
        key = TokenKey(
            kind=TokenKind.REGISTRY,
            connection_id=connection.id,
            revision=connection.revision,
            origin=connection.base_url,
            realm=challenge.parameters.get("realm", ""),
            service=challenge.parameters.get("service", ""),
            repository=str(scope.repository or ""),
            actions=scope.actions,
            scope=token_scope(challenge, scope),
        )

        async def exchange() -> CachedToken:
            return await self._bearer_token(connection, provider, challenge, scope)

        token = await self._token(key, refused, connection, exchange)
        header = Secret(f"Bearer {token.secret.reveal()}")
        return Authorization(header, token.id, token.expires_at)

    async def _cloud(
        self, connection: Connection, provider: Provider, refused: str | None
    ) -> CachedToken:
        """The cloud's own token, one per connection."""
        key = TokenKey(
            kind=TokenKind.CLOUD,
            connection_id=connection.id,
            revision=connection.revision,
            origin=connection.base_url,
        )

        async def exchange() -> CachedToken:
            started = self._clock.time()
            presented = await self._stored(connection, provider)
            assert presented.basic is not None, "what is exchanged has a user name and a password"
            assert presented.expires_at is not None, "what is exchanged ends"
            basic = presented.basic
            return self._fresh(
                connection, basic.password, started, presented.expires_at, basic.username
            )

        return await self._token(key, refused, connection, exchange)

    async def _token(
        self,
        key: TokenKey,
        refused: str | None,
        connection: Connection,
        exchange: Callable[[], Coroutine[Any, Any, CachedToken]],
    ) -> CachedToken:
        token = await self._cache.get(key)
        if token is not None and refused is not None and token.id == refused:
            await self._cache.drop(key, refused)
            token = None
        stale = refused if token is None else token.id

        async def fresh() -> CachedToken:
            async with self._cache.turn(key, stale) as shared:
                return shared or await self._exchanged(key, connection, exchange)

        now = self._clock.time()
        if token is not None and token.usable(now):
            if token.due(now, self._chance()):
                self._flights.start(key, fresh)
            return token
        try:
            token = await self._flights.join(key, fresh)
        except FacadeError:
            # The registry may name another token service by then: let it say so.
            self._schemes.doubt(connection.id, self._clock.monotonic() + FAILURE_SECONDS)
            raise
        self._current(connection)  # it may have been removed meanwhile
        return token

    async def _exchanged(
        self,
        key: TokenKey,
        connection: Connection,
        exchange: Callable[[], Coroutine[Any, Any, CachedToken]],
    ) -> CachedToken:
        try:
            token = await exchange()
        except FacadeError:
            self._observer.exchanged(connection.provider, "failed")
            raise
        self._observer.exchanged(connection.provider, "ok")
        self._shown[connection.id] = str(connection.host)
        self._observer.token_expires(str(connection.host), token.expires_at)
        await self._cache.put(key, token)
        return token

    async def _bearer_token(
        self, connection: Connection, provider: Provider, challenge: Challenge, scope: Scope
    ) -> CachedToken:
        """Ask the registry's token service; with a fresh cloud token once when it refuses."""
        refused: str | None = None
        while True:
            credentials: BasicCredentials | None
            cloud: CachedToken | None = None
            if provider.exchanges:
                cloud = await self._cloud(connection, provider, refused)
                credentials = _presented(cloud).basic
            else:
                credentials = (await self._stored(connection, provider)).basic
            started = self._clock.time()
            try:
                answer = await self._tokens.exchange(connection, challenge, scope, credentials)
            except Upstream as error:
                if cloud is None or refused is not None or error.status not in _REFUSALS:
                    raise
                refused = cloud.id
                continue
            # Counted from before the request: the service's clock started later.
            return self._fresh(connection, answer.token, started, started + answer.expires_in)

    async def _stored(self, connection: Connection, provider: Provider) -> Presented:
        return await provider.credentials(connection, self._connections.secrets(connection.id))

    def _fresh(
        self,
        connection: Connection,
        secret: Secret,
        issued_at: float,
        expires_at: float,
        username: str = "",
    ) -> CachedToken:
        token = CachedToken(secrets.token_hex(8), secret, issued_at, expires_at, username)
        if not token.usable(self._clock.time()):
            raise Upstream(
                f"The token service of {connection.host} gave a token that has expired already. "
                "Check the clocks there and here.",
                reason=Reason.UPSTREAM_REFUSED,
            )
        return token


def _presented(token: CachedToken) -> Presented:
    return Presented(BasicCredentials(token.username, token.secret), token.expires_at)
