"""Which scope a token is asked for (distribution token specification, "scope").

Guarantees: what is asked for never exceeds our own need: the repository that is about to be read,
with our own actions. A challenge may only change the *type* of that very resource (Docker's
`repository(plugin)`), since a registry that could name another repository could use us to obtain
its tokens.
"""

from dataclasses import dataclass

from facade.upstream.challenge import Challenge
from facade.upstream.connection import Scope

MAX_SCOPE_CHARS = 2048
"""Longest scope parameter of a challenge that is looked at."""


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """One `type:name:action,action` as a registry writes it."""

    type: str
    name: str
    actions: tuple[str, ...]


def parse_scopes(text: str) -> tuple[ResourceScope, ...]:
    """Read a scope parameter: resource scopes separated by spaces. Leaves out what it cannot read.

    A name may hold colons (`host:port/path`): the type ends at the first, the actions begin after
    the last.
    """
    scopes = []
    for part in text[:MAX_SCOPE_CHARS].split():
        kind, first, rest = part.partition(":")
        name, last, actions = rest.rpartition(":")
        if first and last and kind and name:
            scopes.append(ResourceScope(kind, name, tuple(filter(None, actions.split(",")))))
    return tuple(scopes)


def token_scope(challenge: Challenge, scope: Scope) -> str:
    """The scope parameter to send to the token service; "" means to send none (as for a ping)."""
    if scope.repository is None:
        return ""
    for asked in parse_scopes(challenge.parameters.get("scope", "")):
        if asked.name == str(scope.repository) and asked.type.startswith("repository("):
            return f"{asked.type}:{asked.name}:{','.join(scope.actions)}"
    return str(scope)
