"""Token services as they differ in the wild, over real sockets."""

import pytest

from facade.errors import Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Scope
from facade.upstream.token import DEFAULT_LIFETIME_SECONDS, BasicCredentials
from facade.upstream.token_client import TokenClient
from tests.support.misbehaviour import drop, rate_limited, status
from tests.support.registry import BearerAuth, Registry
from tests.support.token_server import Account, TokenServer
from tests.support.upstream_client import APP, token_client

SCOPE = Scope(APP)
NIL_GUID = "00000000-0000-0000-0000-000000000000"


async def exchange(
    client: TokenClient, tokens: TokenServer, credentials: BasicCredentials | None
) -> tuple[bool, float]:
    """Ask; returns whether the token pulls APP, and its lifetime."""
    async with Registry() as registry:
        challenge = Challenge("bearer", {"realm": tokens.realm, "service": tokens.service})
        answer = await client.exchange(registry.connection(), challenge, SCOPE, credentials)
    granted = tokens.verify(answer.token.reveal()) or {}
    return "pull" in granted.get(str(APP), ()), answer.expires_in


@pytest.mark.parametrize("user", ["ann", "org+robot", "robot$name", "oauth2accesstoken"])
async def test_user_names_of_all_kinds(user: str) -> None:
    async with TokenServer({user: Account("päss:word")}) as tokens, token_client() as client:
        good = BasicCredentials(user, Secret("päss:word"))
        assert await exchange(client, tokens, good) == (True, 300.0)
        assert tokens.requests[0].query["account"] == [user]


async def test_anonymous_pulls_what_is_public() -> None:
    async with (
        TokenServer(anonymous=frozenset({str(APP)})) as tokens,
        token_client() as client,
    ):
        assert (await exchange(client, tokens, None))[0]
        assert tokens.requests[0].authorization is None


@pytest.mark.parametrize("user", ["<token>", NIL_GUID])
async def test_refresh_tokens_of_docker_and_azure(user: str) -> None:
    async with TokenServer({"me": Account("refresh-me")}) as tokens, token_client() as client:
        tokens.manner.get = False
        tokens.manner.token_field = "access_token"
        assert (await exchange(client, tokens, BasicCredentials(user, Secret("refresh-me"))))[0]
        assert [seen.method for seen in tokens.requests] == ["POST"]
        assert b"refresh-me" in tokens.requests[0].body
        assert tokens.requests[0].query == {}


async def test_a_service_that_knows_the_form_only() -> None:
    async with TokenServer({"ann": Account("secret")}) as tokens, token_client() as client:
        tokens.manner.get = False
        assert (await exchange(client, tokens, BasicCredentials("ann", Secret("secret"))))[0]
        assert [seen.method for seen in tokens.requests] == ["GET", "POST"]


async def test_a_service_that_knows_neither() -> None:
    async with TokenServer({"ann": Account("secret")}) as tokens, token_client() as client:
        tokens.manner.get = tokens.manner.post = False
        with pytest.raises(Upstream, match="405"):
            await exchange(client, tokens, BasicCredentials("ann", Secret("secret")))


async def test_a_silent_service_means_a_minute() -> None:
    async with TokenServer() as tokens, token_client() as client:
        tokens.manner.says_lifetime = False
        assert (await exchange(client, tokens, None))[1] == DEFAULT_LIFETIME_SECONDS


async def test_a_service_whose_clock_is_wrong() -> None:
    async with TokenServer() as tokens, token_client() as client:
        tokens.manner.clock_ahead = 9000
        assert (await exchange(client, tokens, None))[1] >= 299


async def test_a_wrong_password_is_refused_in_the_services_words() -> None:
    async with TokenServer({"ann": Account("secret")}) as tokens, token_client() as client:
        with pytest.raises(Upstream, match="incorrect username or password") as caught:
            await exchange(client, tokens, BasicCredentials("ann", Secret("guess")))
        assert caught.value.reason is Reason.UPSTREAM_REFUSED
        assert caught.value.status == 401
        assert len(tokens.requests) == 1  # a wrong password is not tried twice


async def test_a_relative_realm() -> None:
    async with Registry() as registry, token_client() as client:
        registry.script("/v2/token", status(200, b'{"token":"abc"}'))
        challenge = Challenge("bearer", {"realm": "token"})
        answer = await client.exchange(registry.connection(), challenge, SCOPE, None)
        assert answer.token == Secret("abc")
        assert registry.requests[0].path == "/v2/token"


async def test_what_may_pass_is_tried_again() -> None:
    async with Registry() as registry, token_client() as client:
        registry.script(
            *("/token", rate_limited("1"), status(500), status(200, b'{"token":"abc"}'))
        )
        challenge = Challenge("bearer", {"realm": f"{registry.url}/token"})
        answer = await client.exchange(registry.connection(), challenge, SCOPE, None)
        assert answer.token == Secret("abc")
        assert registry.count("/token") == 3


async def test_a_service_that_is_gone() -> None:
    async with Registry() as registry, token_client() as client:
        registry.script("/token", drop())
        challenge = Challenge("bearer", {"realm": f"{registry.url}/token"})
        with pytest.raises(Upstream, match="broke the connection") as caught:
            await client.exchange(registry.connection(), challenge, SCOPE, None)
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_service_that_was_never_there() -> None:
    async with TokenServer() as tokens:
        pass
    async with Registry(auth=BearerAuth(tokens)) as registry, token_client() as client:
        challenge = Challenge("bearer", {"realm": tokens.realm})
        with pytest.raises(Upstream, match="cannot be reached"):
            await client.exchange(registry.connection(), challenge, SCOPE, None)
        insane = registry.connection(ca_pem="nonsense", insecure=False)
        secure = Challenge("bearer", {"realm": tokens.realm.replace("http:", "https:")})
        with pytest.raises(Upstream, match="CA certificates given"):
            await client.exchange(insane, secure, SCOPE, None)
