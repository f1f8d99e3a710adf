"""What the scriptable registry demands: nothing, Basic, or a token service's Bearer tokens.

Guarantees: challenges are worded as real registries word them (quoted commas included).
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tests.support.raw_http import Data, Reply, Seen


class Auth(Protocol):
    """What a registry demands."""

    def refusal(self, seen: Seen) -> Reply | None:
        """None = let it pass."""
        ...


@dataclass(frozen=True, slots=True)
class NoAuth:
    """Everybody may read everything."""

    def refusal(self, seen: Seen) -> Reply | None:
        return None


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """A user name and a password."""

    username: str
    password: str

    def refusal(self, seen: Seen) -> Reply | None:
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if seen.authorization == f"Basic {pair}":
            return None
        return denied(401, 'Basic realm="Test, with a comma"')


class TokenVerifier(Protocol):
    """Who can tell a good token: `tests.support.token_server.TokenServer`."""

    @property
    def realm(self) -> str: ...

    @property
    def service(self) -> str: ...

    def verify(self, token: str) -> Mapping[str, frozenset[str]] | None:
        """Repository → actions granted; None for a token that is not good (any more)."""
        ...


@dataclass(frozen=True, slots=True)
class BearerAuth:
    """Tokens of a token service. `realm` overrides where the challenge sends people."""

    tokens: TokenVerifier
    realm: str | None = None

    def refusal(self, seen: Seen) -> Reply | None:
        repository = repository_of(seen.path)
        scheme, _, token = (seen.authorization or "").partition(" ")
        granted = self.tokens.verify(token) if scheme.lower() == "bearer" else None
        wanted = "" if repository is None else f',scope="repository:{repository}:pull"'
        realm = self.realm or self.tokens.realm
        challenge = f'Bearer realm="{realm}",service="{self.tokens.service}"{wanted}'
        if granted is None:
            return denied(401, challenge)
        if repository is not None and "pull" not in granted.get(repository, ()):
            return denied(401, challenge + ',error="insufficient_scope"')
        return None


def denied(code: int, challenge: str) -> Reply:
    """An OCI refusal with a challenge."""
    body = error_body("UNAUTHORIZED", "authentication required")
    return Reply(code, (("WWW-Authenticate", challenge),), Data(body))


def error_body(code: str, message: str) -> bytes:
    """An error body of the distribution specification."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def repository_of(path: str) -> str | None:
    """The repository that a path under /v2/ is about."""
    for marker in ("/manifests/", "/blobs/", "/tags/", "/referrers/"):
        name, found, _ = path.removeprefix("/v2/").rpartition(marker)
        if found:
            return name
    return None
