"""Authorizers for tests of the upstream client, where the control wing is not the subject.

Guarantees: `TokenAuthorizer` behaves as the port demands (challenge remembered, one token kept per
scope, a refused one exchanged afresh) without a cache's finer points; every call is noted.
"""

from dataclasses import dataclass

from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, Scope
from facade.upstream.token import BasicCredentials
from facade.upstream.token_client import TokenClient


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of an authorizer."""

    scope: Scope
    challenge: tuple[Challenge, ...]
    refused: str | None


class FixedAuthorizer:
    """Gives the same headers in turn, whatever is asked; the last one stays.

    Arguments:
        headers: Authorization values; None = none.
    """

    def __init__(self, *headers: str | None) -> None:
        self._headers = list(headers or (None,))
        self.asked: list[Asked] = []

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        self.asked.append(Asked(scope, challenge, refused))
        header = self._headers.pop(0) if len(self._headers) > 1 else self._headers[0]
        return Authorization(None if header is None else Secret(header), f"a{len(self.asked)}")


class TokenAuthorizer:
    """Answers Basic and Bearer challenges with one pair of credentials.

    Arguments:
        client: asks the token services.
        credentials: None = anonymous.
    """

    def __init__(self, client: TokenClient, credentials: BasicCredentials | None = None) -> None:
        self._client = client
        self._credentials = credentials
        self._challenge: Challenge | None = None
        self._kept: dict[Scope, Authorization] = {}
        self.asked: list[Asked] = []
        self.exchanges = 0

    async def authorization(
        self,
        connection: Connection,
        scope: Scope,
        *,
        challenge: tuple[Challenge, ...] = (),
        refused: str | None = None,
    ) -> Authorization:
        self.asked.append(Asked(scope, challenge, refused))
        for each in challenge:
            if each.scheme in ("basic", "bearer"):
                self._challenge = each
        kept = self._kept.get(scope)
        if kept is not None and kept.id != refused:
            return kept
        self._kept.pop(scope, None)
        if self._challenge is None:
            return Authorization(None)
        if self._challenge.scheme == "basic":
            header = None if self._credentials is None else self._credentials.header
        else:
            self.exchanges += 1
            answer = await self._client.exchange(
                connection, self._challenge, scope, self._credentials
            )
            header = answer.header
        self._kept[scope] = Authorization(header, f"t{len(self.asked)}")
        return self._kept[scope]
