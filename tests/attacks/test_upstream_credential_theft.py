"""A registry, or whoever it redirects to, tries to get credentials that are not for it."""

from collections.abc import AsyncIterator

import pytest

from facade.clock import SystemClock
from facade.errors import Upstream
from facade.oci.reference import Tag
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Scope
from facade.upstream.token import BasicCredentials
from tests.support.authorizers import FixedAuthorizer, TokenAuthorizer
from tests.support.image import small_image
from tests.support.misbehaviour import header, redirect, status
from tests.support.registry import BasicAuth, BearerAuth, Registry
from tests.support.resolver import FakeResolver
from tests.support.token_server import Account, TokenServer
from tests.support.upstream_client import APP, read_blob, registry_client, token_client

ANN = BasicCredentials("ann", Secret("correct-horse-battery"))
HEADER = ANN.header.reveal()
V1 = Tag("v1")


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry(auth=BasicAuth("ann", ANN.password.reveal())) as registry:
        registry.add_image(str(APP), small_image(), "v1")
        yield registry


@pytest.fixture
async def thief() -> AsyncIterator[Registry]:
    """Somebody else's server, on another port: another origin."""
    async with Registry() as thief:
        thief.add_image(str(APP), small_image(), "v1")
        yield thief


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_redirect_to_another_host_with_authorization(
    registry: Registry, thief: Registry, code: int
) -> None:
    registry.script("*/manifests/*", redirect(f"{thief.url}/v2/{APP}/manifests/v1", code))
    async with registry_client(FixedAuthorizer(HEADER)) as client:
        await client.manifest(registry.connection("static"), APP, V1)
    assert registry.requests[0].authorization == HEADER
    assert [seen.authorization for seen in thief.requests] == [None]
    assert "correct-horse" not in repr(thief.requests)


async def test_redirect_away_and_back_does_not_regain_authorization(
    registry: Registry, thief: Registry
) -> None:
    registry.script("*/manifests/v1", redirect(f"{thief.url}/hop"))
    thief.script("/hop", redirect(f"{registry.url}/v2/{APP}/manifests/v1-secret"))
    async with registry_client(FixedAuthorizer(HEADER)) as client:
        with pytest.raises(Upstream):
            await client.manifest(registry.connection("static"), APP, V1)
    secrets = [seen for seen in registry.requests if seen.path.endswith("v1-secret")]
    assert secrets
    assert all(seen.authorization is None for seen in secrets)


async def test_a_redirect_targets_challenge_is_not_answered(
    registry: Registry, thief: Registry
) -> None:
    registry.script("*/manifests/*", redirect(f"{thief.url}/v2/{APP}/manifests/v1"))
    thief.auth = BasicAuth("anybody", "anything")
    authorizer = FixedAuthorizer(HEADER)
    async with registry_client(authorizer) as client:
        with pytest.raises(Upstream, match="401"):
            await client.manifest(registry.connection("static"), APP, V1)
    assert [asked.challenge for asked in authorizer.asked] == [()]
    assert [seen.authorization for seen in thief.requests] == [None]


async def test_redirect_from_https_down_to_http() -> None:
    async with Registry() as thief, registry_client(FixedAuthorizer(HEADER)) as client:
        connection = thief.connection("static", insecure=True)
        thief.script("/v2/", redirect(f"http://user:pw@{thief.host}/"))
        with pytest.raises(Upstream, match="credentials in the URL") as caught:
            await client.ping(connection)
        assert "pw" not in caught.value.message
        assert len(thief.requests) == 1


async def test_redirect_loop(registry: Registry) -> None:
    registry.script("*/manifests/*", redirect(f"/v2/{APP}/manifests/v1"))
    async with registry_client(FixedAuthorizer(HEADER)) as client:
        with pytest.raises(Upstream, match="more than 5 times") as caught:
            await client.manifest(registry.connection("static"), APP, V1)
    assert caught.value.reason is Reason.UPSTREAM_REFUSED
    assert registry.count() == 6


async def test_link_to_another_origin_is_not_paged_to(registry: Registry, thief: Registry) -> None:
    registry.script("*/tags/list", header("Link", f'<{thief.url}/v2/x>; rel="next"'))
    async with registry_client(FixedAuthorizer(HEADER)) as client:
        connection = registry.connection("static")
        assert [page async for page in client.tags(connection, APP)] == [["v1"]]
    assert thief.requests == []


async def test_realm_on_another_host_is_told_nothing() -> None:
    names = FakeResolver({"thief.example": "127.0.0.1"})
    async with (
        TokenServer({"ann": Account(ANN.password.reveal())}, name="thief.example") as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        token_client(resolver=names) as exchange,
        registry_client(TokenAuthorizer(exchange, ANN)) as client,
    ):
        with pytest.raises(Upstream, match=r"another party.*--auth-host thief\.example") as caught:
            await client.ping(registry.connection("static"))
        assert caught.value.reason is Reason.UPSTREAM_REFUSED
        assert tokens.requests == []
        assert names.asked == []
        allowed = registry.connection("static", auth_hosts=("thief.example",))
        await client.ping(allowed)
        assert tokens.requests[0].authorization == HEADER


async def test_a_token_service_that_redirects_gets_no_further() -> None:
    async with Registry() as thief, Registry() as registry, token_client() as exchange:
        registry.script("/token", redirect(f"{thief.url}/token"))
        challenge = Challenge("bearer", {"realm": f"{registry.url}/token"})
        with pytest.raises(Upstream, match="307"):
            await exchange.exchange(registry.connection("static"), challenge, Scope(APP), ANN)
        assert thief.requests == []


async def test_a_foreign_scope_is_not_asked_for() -> None:
    """A registry that names another repository would use us to get that one's token."""
    async with (
        TokenServer({"ann": Account(ANN.password.reveal(), push=True)}) as tokens,
        Registry() as registry,
        token_client() as exchange,
    ):
        challenge = Challenge(
            "bearer",
            {"realm": tokens.realm, "service": "x", "scope": "repository:other/secret:pull,push"},
        )
        await exchange.exchange(registry.connection("static"), challenge, Scope(APP), ANN)
        assert tokens.requests[0].query["scope"] == [f"repository:{APP}:pull"]


async def test_a_registry_that_repeats_what_it_was_told(registry: Registry) -> None:
    async with registry_client(FixedAuthorizer(HEADER)) as client:
        for echo in (HEADER, ANN.password.reveal(), HEADER.removeprefix("Basic ")):
            body = f'{{"errors":[{{"code":"DENIED","message":"not with {echo} !"}}]}}'.encode()
            registry.script("*", status(403, body), times=1)
            with pytest.raises(Upstream, match=r"DENIED: not with \*\*\*") as caught:
                await client.ping(registry.connection("static"))
            assert "correct-horse" not in str(caught.value)
            assert HEADER.removeprefix("Basic ") not in str(caught.value)


async def test_a_token_service_that_repeats_what_it_was_told() -> None:
    async with TokenServer({}) as tokens, Registry() as registry, token_client() as exchange:
        tokens.manner.get = False
        tokens.manner.status = None
        challenge = Challenge("bearer", {"realm": tokens.realm})
        for post in (False, True):
            tokens.manner.status = 401
            tokens.manner.body = f'{{"details":"bad {ANN.password.reveal()}"}}'.encode()
            user = "<token>" if post else "ann"
            credentials = BasicCredentials(user, ANN.password)
            with pytest.raises(Upstream, match=r"bad \*\*\*") as caught:
                await exchange.exchange(
                    registry.connection("static"), challenge, Scope(APP), credentials
                )
            assert "correct-horse" not in str(caught.value)
            assert caught.value.status == 401


async def test_a_token_with_a_line_break_never_becomes_a_header() -> None:
    async with TokenServer() as tokens, Registry() as registry, token_client() as exchange:
        tokens.manner.status = 200
        tokens.manner.body = b'{"token":"x\\r\\nHost: evil"}'
        challenge = Challenge("bearer", {"realm": tokens.realm})
        with pytest.raises(Upstream, match="no usable token"):
            await exchange.exchange(registry.connection(), challenge, Scope(APP), None)


async def test_cookies_are_not_kept(registry: Registry) -> None:
    async with registry_client(FixedAuthorizer(HEADER), clock=SystemClock()) as client:
        registry.script("*", header("Set-Cookie", "session=1; Path=/"))
        digest = registry.add_blob(str(APP), b"x")
        await client.ping(registry.connection("static"))
        await read_blob(client, registry.connection("static"), digest)
    assert all("cookie" not in seen.headers for seen in registry.requests)
