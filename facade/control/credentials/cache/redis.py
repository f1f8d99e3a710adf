"""Tokens shared through Redis, with this process's memory before it.

Guarantees: what lies in Redis is sealed and bound to its whole key (connection, revision, origin,
token service, repository, actions, scope) with its expiry inside, so whoever writes to Redis
makes no token answer for another, for longer, or after its connection was changed or removed;
one process at a time exchanges for a key while Redis answers. While it does not, the memory
alone serves (`redis_link` bounds what noticing costs). Does not hide from a reader of Redis how
many tokens there are and when they end; an older token that such a writer puts back is refused
by its registry once, and then exchanged.
"""

import asyncio
import contextlib
import hashlib
import json
import math
import operator
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import structlog

from facade.clock import Clock
from facade.control.connections.sealing import Sealer
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.cache.redis_link import RedisDownError, RedisLink
from facade.control.credentials.observer import NullSharedCacheObserver, SharedCacheObserver
from facade.control.credentials.tokens import CachedToken, TokenKey
from facade.errors import Integrity, Unavailable
from facade.secret import Secret

log = structlog.get_logger(__name__)

PREFIX = "facade:token:"
_LOCK_PREFIX = "facade:lock:"
LOCK_SECONDS = 5.0
"""After a process dies in the middle of an exchange, others go on after this; it is renewed."""
POLL_SECONDS = 0.05
MAX_TURN_SECONDS = 30.0
"""Nobody waits longer for another process than a pull may take to its first byte."""
MAX_VALUE_BYTES = 128 * 1024
"""A token has at most 32 KiB; more than this is not ours, and not read."""
_MAX_FORGOTTEN = 10_000

_RELEASE = (
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0"
)
_RENEW = (
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) end "
    "return 0"
)


class RedisTokenCache:
    """Implements `TokenCache`.

    Arguments:
        link: to Redis; closed with the cache.
        sealer: for the purpose "tokens".
    """

    def __init__(
        self,
        link: RedisLink,
        sealer: Sealer,
        clock: Clock,
        *,
        observer: SharedCacheObserver | None = None,
    ) -> None:
        self._link = link
        self._sealer = sealer
        self._clock = clock
        self._observer = observer or NullSharedCacheObserver()
        self._memory = MemoryTokenCache(clock)
        self._forgotten: OrderedDict[str, float] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Finish what is being removed, and close the link."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.close()

    async def get(self, key: TokenKey) -> CachedToken | None:
        # Redis is read in `turn`, once for all who wait for the same token.
        return await self._memory.get(key)

    async def put(self, key: TokenKey, token: CachedToken) -> None:
        await self._memory.put(key, token)
        left = math.floor((token.expires_at - self._clock.time()) * 1000)
        if left <= 0:
            return
        sealed = self._sealer.seal(_to_text(token), bound_to(key))
        with contextlib.suppress(RedisDownError):
            await self._link.run(lambda client: client.set(name_of(key), sealed, px=left))

    async def drop(self, key: TokenKey, token_id: str) -> None:
        await self._memory.drop(key, token_id)
        name = name_of(key)
        with contextlib.suppress(RedisDownError):
            value = await self._link.run(lambda client: client.getrange(name, 0, MAX_VALUE_BYTES))
            token = self._opened(key, value)
            if token is not None and token.id == token_id:
                # Only if it is still that one: another process may just have put its successor.
                await self._link.run(lambda client: client.eval(_RELEASE, 1, name, value))

    def forget(self, connection_id: str) -> None:
        names = [name_of(key) for key in self._memory.keys_of(connection_id)]
        self._memory.forget(connection_id)
        # What is in Redis counts no more at once; taking it out there is housekeeping.
        self._forgotten[connection_id] = self._clock.time()
        self._forgotten.move_to_end(connection_id)
        while len(self._forgotten) > _MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)
        if names:
            self._background(self._remove(names))

    @asynccontextmanager
    async def turn(self, key: TokenKey, stale: str | None) -> AsyncIterator[CachedToken | None]:
        lock, owner = _LOCK_PREFIX + _digest(key), secrets.token_hex(16)
        held, found = False, None
        try:
            held, found = await self._wait(key, lock, owner, stale)
        except RedisDownError:
            pass  # each process for itself, then
        except BaseException:
            # Cancelled between asking for the lock and hearing of it.
            self._background(self._release(lock, owner))
            raise
        renewal = self._background(self._renew(lock, owner)) if held and not found else None
        try:
            yield found
        finally:
            if renewal is not None:
                renewal.cancel()
            if held:
                self._background(self._release(lock, owner))

    async def reseal(self, sealer: Sealer, retired: frozenset[str]) -> None:
        """Seal with `sealer` from now on, and take out what the `retired` keys sealed.

        What cannot be reached ends within its own lifetime.
        """
        self._sealer = sealer
        headers = tuple(f"f1.{key_id}.".encode() for key_id in retired)
        names: list[str] = []

        async def find(client: Any) -> None:
            async for raw in client.scan_iter(match=f"{PREFIX}*", count=500):
                name = raw.decode() if isinstance(raw, bytes) else raw
                if (await client.getrange(name, 0, 63)).startswith(headers):
                    names.append(name)

        with contextlib.suppress(RedisDownError):
            await self._link.run(find, seconds=MAX_TURN_SECONDS)
        await self._remove(names)

    async def _wait(
        self, key: TokenKey, lock: str, owner: str, stale: str | None
    ) -> tuple[bool, CachedToken | None]:
        """Whether the lock is ours, and the token that made it needless."""
        until = self._clock.monotonic() + MAX_TURN_SECONDS
        life = int(LOCK_SECONDS * 1000)
        held: object = False
        while True:
            token = await self._read(key)
            if token is not None and token.id != stale and token.usable(self._clock.time()):
                return bool(held), token
            if held or self._clock.monotonic() >= until:
                return bool(held), None
            held = await self._link.run(lambda client: client.set(lock, owner, nx=True, px=life))
            # When it is ours, look once more: what was put before it was free is seen then.
            if not held:
                await self._clock.sleep(POLL_SECONDS)

    async def _renew(self, lock: str, owner: str) -> None:
        life = int(LOCK_SECONDS * 1000)
        with contextlib.suppress(RedisDownError):
            ours = 1
            while ours:
                await self._clock.sleep(LOCK_SECONDS / 3)
                ours = await self._link.run(
                    lambda client: client.eval(_RENEW, 1, lock, owner, life)
                )

    async def _release(self, lock: str, owner: str) -> None:
        with contextlib.suppress(RedisDownError):
            await self._link.run(lambda client: client.eval(_RELEASE, 1, lock, owner))

    async def _remove(self, names: list[str]) -> None:
        with contextlib.suppress(RedisDownError):
            for name in names:  # one by one: a cluster's keys lie apart
                await self._link.run(operator.methodcaller("unlink", name))

    async def _read(self, key: TokenKey) -> CachedToken | None:
        """What Redis has, into the memory too. Raises RedisDownError."""
        name = name_of(key)
        value = await self._link.run(lambda client: client.getrange(name, 0, MAX_VALUE_BYTES))
        token = self._opened(key, value)
        if token is None:
            return None
        if token.expires_at <= self._clock.time():
            return None  # its sealed expiry counts, whatever Redis was told
        if token.issued_at <= self._forgotten.get(key.connection_id, -math.inf):
            return None
        await self._memory.put(key, token)
        return token

    def _opened(self, key: TokenKey, value: bytes) -> CachedToken | None:
        if not value:
            return None
        try:
            text = self._sealer.open(value.decode("ascii"), bound_to(key))
        except Unavailable:
            return None  # sealed with a key that was retired, or that another node has already
        except (Integrity, UnicodeDecodeError):
            log.warning("redis_value_refused", connection_id=key.connection_id)
            self._observer.redis_value_refused()
            return None
        return _from_text(text)

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def bound_to(key: TokenKey) -> tuple[str, ...]:
    """The whole key, as what a sealed value is bound to."""
    return (
        "token",
        key.kind,
        key.connection_id,
        str(key.revision),
        key.origin,
        key.realm,
        key.service,
        key.repository,
        json.dumps(key.actions),
        key.scope,
    )


def _digest(key: TokenKey) -> str:
    return hashlib.sha256(json.dumps(bound_to(key)).encode()).hexdigest()


def name_of(key: TokenKey) -> str:
    """Where a key's token lies in Redis; says nothing of the key to who does not know it."""
    return PREFIX + _digest(key)


def _to_text(token: CachedToken) -> str:
    return json.dumps(
        [token.id, token.secret.reveal(), token.issued_at, token.expires_at, token.username]
    )


def _from_text(text: str) -> CachedToken:
    token_id, secret, issued_at, expires_at, username = json.loads(text)
    return CachedToken(token_id, Secret(secret), issued_at, expires_at, username)
