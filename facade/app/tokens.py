"""Wires tokens: where they come from, their cache (memory, or Redis with memory before it), and what the
serving side gets.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from facade.clock import Clock
from facade.config import Settings
from facade.config.redis_url import parse_redis_url
from facade.control.connections.rotation import TOKENS, SealedTokens
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.connections.store import ConnectionStore
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.providers import GOOGLE_TOKEN_URI, Endpoints, Providers
from facade.control.credentials.tokens import TokenCache
from facade.control.credentials.witness import WitnessedAuthorizer
from facade.observability.health import Check, Finding, Severity
from facade.observability.metrics import Metrics
from facade.oci.reference import Repository
from facade.upstream.challenge import Challenge
from facade.upstream.client import RegistryClient
from facade.upstream.connection import Authorizer, Connection
from facade.upstream.probe import ask_for_challenge


@dataclass(frozen=True, slots=True)
class Tokens:
    """Where tokens are kept.

    Arguments:
        sealed: the same, where it seals what it keeps.
        checks: for readiness.
    """

    cache: TokenCache
    sealed: SealedTokens | None = None
    checks: tuple[tuple[str, Check], ...] = ()


async def token_cache(
    stack: AsyncExitStack, settings: Settings, ring: KeyRing, metrics: Metrics, clock: Clock
) -> Tokens:
    """The cache; a Redis that does not answer does not stop the start."""
    if not settings.redis.url:
        return Tokens(MemoryTokenCache(clock))
    # Not imported where there is no Redis: it costs a tenth of a second.
    from facade.control.credentials.cache.redis import RedisTokenCache  # noqa: PLC0415
    from facade.control.credentials.cache.redis_link import (  # noqa: PLC0415
        RedisLink,
        redis_client,
    )

    url = parse_redis_url(settings.redis.url)
    link = RedisLink(redis_client(url), url.places, clock, observer=metrics)
    cache = RedisTokenCache(link, Sealer(ring, TOKENS), clock, observer=metrics)
    stack.push_async_callback(cache.close)
    await link.start()

    def check() -> tuple[Finding, ...]:
        if link.up:
            return ()
        words = f"Redis at {url.places} does not answer; tokens are kept in memory"
        return (Finding(Severity.DEGRADED, words),)

    return Tokens(cache, cache, (("redis", check),))


def for_the_serving_side(
    stack: AsyncExitStack,
    broker: Authorizer,
    *,
    store: ConnectionStore,
    providers: Providers,
    client_with: Callable[[Authorizer], RegistryClient],
) -> Authorizer:
    """The broker, but that what the serving side says of a registry is not simply believed."""

    async def ask(connection: Connection, repository: Repository | None) -> tuple[Challenge, ...]:
        return await ask_for_challenge(client_with, connection, repository)

    authorizer = WitnessedAuthorizer(
        broker,
        connections=store,
        keeps_password=lambda provider: not providers.get(provider).exchanges,
        ask=ask,
    )
    stack.push_async_callback(authorizer.close)
    return authorizer


def endpoints(settings: Settings) -> Endpoints:
    """Where clouds are asked for tokens."""
    given = settings.credentials
    return Endpoints(
        google_token_uri=given.google_token_uri or GOOGLE_TOKEN_URI,
        google_hosts=frozenset(given.google_hosts),
        aws_sts=given.aws_sts_endpoint,
        aws_ecr=given.aws_ecr_endpoint,
    )
