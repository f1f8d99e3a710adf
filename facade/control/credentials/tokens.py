"""Cached tokens: their keys, their lifetime, and the cache's port.

Guarantees: a `TokenKey` is a frozen value of everything that a token is good for, so a token of one
connection, revision, origin, token service, repository or set of actions is never found under
another's; `usable` is False before a token ends, `due` early enough that a fresh one is there by
then. Pure.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from facade.secret import Secret

REFRESH_SHARE = 0.1
"""A token is replaced when this share of its life is left,"""
MIN_REFRESH_SECONDS = 30.0
"""but at least this long before its end,"""
MAX_REFRESH_SHARE = 0.5
"""but never before this share of a short life is used;"""
JITTER_SHARE = 0.2
"""and up to this share of that margin earlier, by chance, so that not all refresh at once."""
LAST_SECONDS = 5.0
"""A token is not handed out when it ends within this many seconds: it has to travel still,"""
LAST_SHARE = 0.25
"""or within this share of a very short life."""


class TokenKind(StrEnum):
    """What a token opens."""

    REGISTRY = "registry"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Everything that a token is good for.

    Arguments:
        origin: the registry's base URL.
        realm, service: the token service that gave it; "" for a cloud's.
        repository, actions, scope: what it allows; "" for a cloud's.
    """

    kind: TokenKind
    connection_id: str
    revision: int
    origin: str
    realm: str = ""
    service: str = ""
    repository: str = ""
    actions: tuple[str, ...] = ()
    scope: str = ""


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A token with its life in Unix seconds.

    Arguments:
        id: opaque; names this very token.
        username: to present it with (Basic); "" = it is a bearer token.
    """

    id: str
    secret: Secret
    issued_at: float
    expires_at: float
    username: str = ""

    def usable(self, now: float) -> bool:
        """Whether it may still be handed out."""
        life = self.expires_at - self.issued_at
        return now < self.expires_at - min(LAST_SECONDS, LAST_SHARE * life)

    def due(self, now: float, chance: float) -> bool:
        """Whether it is time to get its successor.

        Arguments:
            chance: a number in [0, 1), drawn anew for each question.
        """
        life = self.expires_at - self.issued_at
        margin = min(max(MIN_REFRESH_SECONDS, REFRESH_SHARE * life), MAX_REFRESH_SHARE * life)
        return now >= self.expires_at - margin * (1 + JITTER_SHARE * chance)


class TokenCache(Protocol):
    """Where tokens are kept. Losing one costs an exchange, never more."""

    async def get(self, key: TokenKey) -> CachedToken | None:
        """The token under `key` that is at hand; it may be near its end. `turn` looks further."""
        ...

    async def put(self, key: TokenKey, token: CachedToken) -> None:
        """Keep `token` until its end."""
        ...

    async def drop(self, key: TokenKey, token_id: str) -> None:
        """Forget the token under `key` if it is the one named `token_id`."""
        ...

    def forget(self, connection_id: str) -> None:
        """Forget all tokens of a connection, as far as they are within reach."""
        ...

    def turn(
        self, key: TokenKey, stale: str | None
    ) -> AbstractAsyncContextManager[CachedToken | None]:
        """Wait for this process's turn to exchange, where the cache is shared.

        Arguments:
            stale: id of the token that is to be replaced; None = there is none.

        Gives the token that another process has got meanwhile, or None: then it is ours to
        exchange and `put` within the block, and no other process does so at the same time (unless
        the shared store fails: then several may, which costs an exchange and nothing else).
        """
        ...
