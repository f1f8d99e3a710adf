"""Authorizations that a serving process was given a moment ago, so that a fill need not ask again.

Guarantees: an answer is only given again for the very connection, revision and scope that it was for,
within HOLD_SECONDS, and never in the last MARGIN_SECONDS of its life. What is kept is short-lived: bearer
tokens with a known end, and the knowledge that nothing is sent; a user name and password, or a cloud's
token, is asked for each time. A challenge or a refusal drops what was kept and always asks. Does not share
a call between those who ask at the same time: whoever answers does.
"""

from collections import OrderedDict
from dataclasses import dataclass

from facade.clock import Clock
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Authorizer, Connection, Scope

HOLD_SECONDS = 30.0
MARGIN_SECONDS = 30.0
"""Whoever obtains tokens has the next one by then."""
MAX_HELD = 1024


_Key = tuple[str, int, Scope]


@dataclass(frozen=True, slots=True)
class _Held:
    """One answer; `until` is monotonic seconds."""

    authorization: Authorization
    until: float


class RememberingAuthorizer:
    """Implements `Authorizer` in front of another one."""

    def __init__(self, inner: Authorizer, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._held: OrderedDict[_Key, _Held] = OrderedDict()

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        key = _key(connection, scope)
        if challenge or refused is not None:
            self._held.pop(key, None)
        elif (known := self.known(connection, scope)) is not None:
            return known
        given = await self._inner.authorization(
            connection, scope, challenge=challenge, refused=refused
        )
        if _is_short_lived(given):
            self._held[key] = _Held(given, self._clock.monotonic() + HOLD_SECONDS)
            self._held.move_to_end(key)
            if len(self._held) > MAX_HELD:
                self._held.popitem(last=False)
        return given

    def known(self, connection: Connection, scope: Scope) -> Authorization | None:
        """What `authorization` would give without asking anybody."""
        key = _key(connection, scope)
        held = self._held.get(key)
        if held is None or self._is_good(held):
            return None if held is None else held.authorization
        del self._held[key]
        return None

    def _is_good(self, held: _Held) -> bool:
        ends = held.authorization.expires_at
        lasts = ends is None or self._clock.time() < ends - MARGIN_SECONDS
        return lasts and self._clock.monotonic() < held.until


def _key(connection: Connection, scope: Scope) -> _Key:
    """An id is never used again, and whatever changes of a connection counts its revision up."""
    return connection.id, connection.revision, scope


def _is_short_lived(given: Authorization) -> bool:
    """Whether it may be kept in a process that holds no long-lived secret."""
    if given.header is None:
        return True
    return given.expires_at is not None and given.header.reveal().startswith("Bearer ")
