"""ECR's door in front of another registry: Basic with an issued token, nothing else.

Guarantees: what passes is answered by the registry behind; without credentials the challenge is ECR's
(Basic, no Bearer), an unknown token is 401 and an expired one 400, as ECR does. Reads only. Notes
each request with the state of its token.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from facade.oci.host import RegistryHost
from tests.support.cloud import IssuedTokens, State
from tests.support.raw_http import Data, RawHttpServer, Reply, Seen

_PASSED_ON = ("accept", "range", "if-range")
_PASSED_BACK = (
    *("Content-Type", "Docker-Content-Digest", "Docker-Distribution-Api-Version", "ETag"),
    *("Accept-Ranges", "Content-Range", "Link"),
)


@dataclass(frozen=True, slots=True)
class Passed:
    """One request as the gate judged it; None = it came without credentials."""

    method: str
    path: str
    state: State | None


class EcrGate:
    """The door; use as an async context manager.

    Arguments:
        behind: base URL of an open registry.
        tokens: which passwords open it.
    """

    def __init__(self, behind: str, tokens: IssuedTokens) -> None:
        self._behind = behind
        self._tokens = tokens
        self.requests: list[Passed] = []
        self._server = RawHttpServer(self._handle)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._server.close()
        assert self._session is not None
        await self._session.close()

    @property
    def host(self) -> RegistryHost:
        return RegistryHost("127.0.0.1", self._server.port)

    async def _handle(self, seen: Seen) -> Reply:
        state = None if seen.authorization is None else self._state(seen.authorization)
        self.requests.append(Passed(seen.method, seen.path, state))
        if state is State.GOOD:
            return await self._pass(seen)
        if state is State.EXPIRED:
            message = "Your authorization token has expired. Reauthenticate and try again."
            return _error(400, "DENIED", message)
        challenge = f'Basic realm="https://{self.host}/",service="ecr.amazonaws.com"'
        return _error(401, "UNAUTHORIZED", "Not Authorized").with_header(
            "WWW-Authenticate", challenge
        )

    def _state(self, authorization: str) -> State:
        scheme, _, value = authorization.partition(" ")
        try:
            username, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return State.UNKNOWN
        if scheme != "Basic" or username != "AWS":
            return State.UNKNOWN
        return self._tokens.state(password)

    async def _pass(self, seen: Seen) -> Reply:
        assert self._session is not None
        url = URL(self._behind + seen.path, encoded=True).with_query(
            {name: values[0] for name, values in seen.query.items()}
        )
        headers = {name: seen.headers[name] for name in _PASSED_ON if name in seen.headers}
        async with self._session.request(
            seen.method, url, headers=headers, allow_redirects=False
        ) as response:
            body = await response.read()
            back = tuple(
                (name, response.headers[name]) for name in _PASSED_BACK if name in response.headers
            )
            length = response.content_length if seen.method == "HEAD" else None
            return Reply(response.status, back, Data(body), length=length)


def _error(status: int, code: str, message: str) -> Reply:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply(status, (("Content-Type", "application/json"),), Data(body))
