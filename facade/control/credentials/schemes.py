"""How each registry wants to be authorized, learned from its challenges.

Guarantees: what was learned for one revision of a connection is not used for another; what led to no
token is soon forgotten, so that a registry that corrects its challenge is heard; bounded. A
repository for which nothing was learned yet takes what the registry asked for last: a wrong guess
costs one refused request, whose challenge then corrects it.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable

from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Connection, Scope

MAX_LEARNED = 10_000

_Place = tuple[str, int, str | None]


class Schemes:
    """The remembered challenges of a process."""

    def __init__(self, *, max_learned: int = MAX_LEARNED) -> None:
        self._max = max_learned
        self._learned: OrderedDict[_Place, Challenge] = OrderedDict()
        self._doubted: dict[str, float] = {}

    def learn(self, connection: Connection, scope: Scope, offered: Iterable[Challenge]) -> None:
        """Remember the best of the challenges just received.

        Raises Upstream (UPSTREAM_REFUSED) when none of them is one that we speak.
        """
        challenges = tuple(offered)
        chosen = choose(challenges)
        if chosen is None:
            names = ", ".join(sorted({challenge.scheme[:20] for challenge in challenges}))
            raise Upstream(
                f"{connection.host} asks for authorization by {names}; only Basic and Bearer (with "
                "a realm) are supported.",
                reason=Reason.UPSTREAM_REFUSED,
                status=401,
            )
        self._doubted.pop(connection.id, None)
        for place in (_place(connection, scope), _place(connection, None)):
            self._learned[place] = chosen
            self._learned.move_to_end(place)
        while len(self._learned) > self._max:
            self._learned.popitem(last=False)

    def known(self, connection: Connection, scope: Scope, now: float) -> Challenge | None:
        """What this registry asked for, for this repository or else last.

        Arguments:
            now: monotonic seconds.
        """
        if now >= self._doubted.get(connection.id, math.inf):
            self.forget(connection.id)
        own = self._learned.get(_place(connection, scope))
        return own or self._learned.get(_place(connection, None))

    def doubt(self, connection_id: str, since: float) -> None:
        """What was learned of a connection did not lead to a token: forget it at `since`.

        Arguments:
            since: monotonic seconds; an earlier doubt stands.
        """
        if any(place[0] == connection_id for place in self._learned):
            self._doubted.setdefault(connection_id, since)

    def forget(self, connection_id: str) -> None:
        """Forget a connection's."""
        self._doubted.pop(connection_id, None)
        for place in [place for place in self._learned if place[0] == connection_id]:
            del self._learned[place]


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """Bearer with a realm before Basic: a token that ends is worth less to a thief."""
    found: Challenge | None = None
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
        if challenge.scheme == "basic" and found is None:
            found = challenge
    return found


def _place(connection: Connection, scope: Scope | None) -> _Place:
    repository = None if scope is None else str(scope.repository or "")
    return (connection.id, connection.revision, repository)
