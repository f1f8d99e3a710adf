"""Makes the token cache that the settings ask for: memory, or Redis with memory before it."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from facade.clock import Clock
from facade.config import Settings
from facade.config.redis_url import parse_redis_url
from facade.control.connections.rotation import TOKENS, SealedTokens
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.tokens import TokenCache
from facade.observability.health import Check, Finding, Severity
from facade.observability.metrics import Metrics


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
