"""Token caches over a real Redis, and a broker on one, for tests and for processes of their own.

Guarantees: the real cache and the real broker; the connection is a value that is the same in every
process, so that its tokens are shared.

    python -m tests.support.token_caches REDIS_URL KEY_FILE REGISTRY_HOST REALM WAITERS

asks for the same token with that many waiters at once, as soon as a line comes on stdin, and prints
the different answers' headers as JSON.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from facade.clock import Clock, SystemClock
from facade.config.redis_url import parse_redis_url
from facade.control.connections.sealing import KeyRing, Sealer
from facade.control.credentials.broker import TokenBroker
from facade.control.credentials.cache.redis import RedisTokenCache
from facade.control.credentials.cache.redis_link import COMMAND_SECONDS, RedisLink, redis_client
from facade.control.credentials.model import StoredSecrets
from facade.control.credentials.providers import ProviderContext, Providers
from facade.control.credentials.tokens import CachedToken, TokenKey, TokenKind
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.secret import Secret
from facade.upstream.addresses import AddressPolicy
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, ConnectionSettings, Scope
from facade.upstream.token_client import TokenClient

KEY = TokenKey(
    TokenKind.REGISTRY, "c1", 1, "https://r.example", "https://r.example/token", "r", "a"
)
USER, PASSWORD = "robot", "shared-Pa55word"
RING = KeyRing.generate()


class Noted:
    """What a cache told its observer."""

    def __init__(self) -> None:
        self.up: list[bool] = []
        self.refused = 0

    def redis_up(self, up: bool) -> None:
        self.up.append(up)

    def redis_value_refused(self) -> None:
        self.refused += 1


@asynccontextmanager
async def redis_cache(
    url: str,
    *,
    ring: KeyRing = RING,
    clock: Clock | None = None,
    noted: Noted | None = None,
    seconds: float = COMMAND_SECONDS,
) -> AsyncIterator[RedisTokenCache]:
    """A cache on the Redis at `url`."""
    clock = clock or SystemClock()
    parsed = parse_redis_url(url)
    link = RedisLink(redis_client(parsed), parsed.places, clock, observer=noted, seconds=seconds)
    cache = RedisTokenCache(link, Sealer(ring, "tokens"), clock, observer=noted)
    try:
        yield cache
    finally:
        await cache.close()


def token(clock: Clock, token_id: str = "t1", life: float = 300.0) -> CachedToken:
    """A token issued now."""
    now = clock.time()
    return CachedToken(token_id, Secret(f"canary-{token_id}"), now, now + life)


async def shared(cache: RedisTokenCache, key: TokenKey = KEY) -> CachedToken | None:
    """What a process that has nothing at hand finds."""
    async with cache.turn(key, None) as found:
        return found


class _OneConnection:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def current(self, connection_id: str) -> Connection | None:
        return self._connection

    def secrets(self, connection_id: str) -> StoredSecrets:
        return StoredSecrets(USER, {"secret": Secret(PASSWORD)})


async def _ask(url: str, key_file: str, host: str, realm: str, waiters: str) -> None:
    clock = SystemClock()
    connection = Connection(
        "shared", RegistryHost.parse(host), "static", settings=ConnectionSettings(insecure=True)
    )
    tokens = TokenClient(addresses=AddressPolicy(["127.0.0.0/8"]), clock=clock)
    async with redis_cache(url, ring=KeyRing.load(Path(key_file)), clock=clock) as cache:
        broker = TokenBroker(
            connections=_OneConnection(connection),
            providers=Providers(ProviderContext(clock)),
            tokens=tokens,
            cache=cache,
            clock=clock,
        )
        challenge = (Challenge("bearer", {"realm": realm, "service": "test registry"}),)
        scope = Scope(Repository.parse("org/app"))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        got = await asyncio.gather(
            *(
                broker.authorization(connection, scope, challenge=challenge)
                for _ in range(int(waiters))
            )
        )
        headers = {one.header.reveal() for one in got if one.header is not None}
        print(json.dumps(sorted(headers)), flush=True)
        await broker.close()
    await tokens.close()


if __name__ == "__main__":
    asyncio.run(_ask(*sys.argv[1:]))
