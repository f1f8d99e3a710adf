"""A cloud's tokens: issued, ended by the clock, revoked. What the cloud fakes and registries share.

Guarantees: a token is good from its issue until its end on the given clock, unless revoked; tokens
are never guessable and never equal. `accepts_google` is what a registry's token service asks.
"""

import secrets
from dataclasses import dataclass, field
from enum import Enum

from facade.clock import Clock


class State(Enum):
    """What a registry thinks of a token."""

    GOOD = "good"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


@dataclass
class IssuedTokens:
    """The tokens of one cloud.

    Arguments:
        clock: by which they end.
    """

    clock: Clock
    issued: list[str] = field(default_factory=list, repr=False)
    _ends: dict[str, float] = field(default_factory=dict, repr=False)

    def issue(self, prefix: str, lifetime: float) -> str:
        """A new token that is good for `lifetime` seconds."""
        token = f"{prefix}{len(self.issued) + 1}.{secrets.token_urlsafe(48)}"
        self.issued.append(token)
        self._ends[token] = self.clock.time() + lifetime
        return token

    def state(self, token: str) -> State:
        """What to think of a token."""
        end = self._ends.get(token)
        if end is None:
            return State.UNKNOWN
        return State.GOOD if self.clock.time() < end else State.EXPIRED

    def revoke_all(self) -> None:
        """End all tokens now, which their holders are not told."""
        for token in self._ends:
            self._ends[token] = self.clock.time()

    def accepts_google(self, username: str, password: str) -> bool:
        """Whether a Google registry's token service lets this user in."""
        return username == "oauth2accesstoken" and self.state(password) is State.GOOD
