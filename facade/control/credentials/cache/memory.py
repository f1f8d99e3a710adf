"""Tokens in this process's memory.

Guarantees: bounded; the longest unused go first. A token is not found after its end even when the wall
clock was set back: its life is counted on the monotonic clock too. Shared with nobody.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from facade.clock import Clock
from facade.control.credentials.tokens import CachedToken, TokenKey

MAX_TOKENS = 10_000


class MemoryTokenCache:
    """Implements `TokenCache`.

    Arguments:
        max_tokens: how many are kept.
    """

    def __init__(self, clock: Clock, *, max_tokens: int = MAX_TOKENS) -> None:
        self._clock = clock
        self._max = max_tokens
        self._tokens: OrderedDict[TokenKey, tuple[float, CachedToken]] = OrderedDict()

    async def get(self, key: TokenKey) -> CachedToken | None:
        found = self._tokens.get(key)
        if found is None:
            return None
        ends, token = found
        if self._clock.monotonic() >= ends:
            del self._tokens[key]
            return None
        self._tokens.move_to_end(key)
        return token

    async def put(self, key: TokenKey, token: CachedToken) -> None:
        left = token.expires_at - self._clock.time()
        self._tokens[key] = (self._clock.monotonic() + left, token)
        self._tokens.move_to_end(key)
        while len(self._tokens) > self._max:
            self._tokens.popitem(last=False)

    async def drop(self, key: TokenKey, token_id: str) -> None:
        found = self._tokens.get(key)
        if found is not None and found[1].id == token_id:
            del self._tokens[key]

    def forget(self, connection_id: str) -> None:
        for key in self.keys_of(connection_id):
            del self._tokens[key]

    @asynccontextmanager
    async def turn(self, key: TokenKey, stale: str | None) -> AsyncIterator[CachedToken | None]:
        yield None  # nobody else exchanges for this memory

    def keys_of(self, connection_id: str) -> tuple[TokenKey, ...]:
        """What is kept of a connection."""
        return tuple(key for key in self._tokens if key.connection_id == connection_id)
