"""The broker over real cloud providers: one exchange for all, never an ended token, repaired at once."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.clock import SystemClock
from facade.errors import Denied, Upstream
from facade.oci.host import RegistryHost
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Connection, ConnectionSettings, Scope
from tests.support.broker import APP, BASIC, OTHER
from tests.support.clock import FakeClock
from tests.support.cloud import IssuedTokens, State
from tests.support.cloud_google import acme_account
from tests.support.cloud_parts import Clouds, clouds
from tests.support.docker_registry import docker_registry
from tests.support.ecr_gate import EcrGate
from tests.support.image import push, small_image
from tests.support.token_server import TokenServer
from tests.support.upstream_client import registry_client

HOUR = 3600.0
INSECURE = ConnectionSettings(insecure=True)


def password(authorization: Authorization) -> str:
    """What a Basic header presents as user AWS."""
    assert authorization.header is not None
    scheme, _, value = authorization.header.reveal().partition(" ")
    username, _, secret = base64.b64decode(value).decode().partition(":")
    assert (scheme, username) == ("Basic", "AWS")
    return secret


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Clouds]:
    async with clouds(tmp_path, FakeClock()) as parts:
        yield parts


async def test_100_waiters_one_exchange_and_one_token_for_all_repositories(parts: Clouds) -> None:
    connection = await parts.connect_aws()
    got = await asyncio.gather(
        *(
            parts.broker.authorization(connection, (APP, OTHER)[n % 2], challenge=BASIC)
            for n in range(100)
        )
    )
    assert len({password(authorization) for authorization in got}) == 1
    assert parts.aws.operations == ["AssumeRole", "GetAuthorizationToken"]


async def test_days_of_pulls_and_never_an_ended_token(parts: Clouds) -> None:
    clock = parts.clock
    assert isinstance(clock, FakeClock)
    connection = await parts.connect_aws()
    await parts.broker.authorization(connection, APP, challenge=BASIC)
    for _ in range(24 * 5):
        clock.advance(HOUR)
        authorization = await parts.broker.authorization(connection, APP)
        assert parts.aws.tokens.state(password(authorization)) is State.GOOD
        await parts.quiet()  # a refresh ahead runs beside
    # Twelve hours each, replaced when a tenth is left.
    assert 10 <= len(parts.aws.tokens.issued) <= 13


async def test_a_refused_token_is_exchanged_once_for_all_who_name_it(parts: Clouds) -> None:
    connection = await parts.connect_aws()
    first = await parts.broker.authorization(connection, APP, challenge=BASIC)
    parts.aws.tokens.revoke_all()
    fresh = await asyncio.gather(
        *(parts.broker.authorization(connection, APP, refused=first.id) for _ in range(20))
    )
    assert len({password(authorization) for authorization in fresh}) == 1
    assert len(parts.aws.tokens.issued) == 2


async def test_repaired_credentials_work_within_seconds(parts: Clouds) -> None:
    clock = parts.clock
    assert isinstance(clock, FakeClock)
    connection = await parts.connect_aws()
    role, parts.aws.roles = parts.aws.roles, {}
    with pytest.raises(Upstream, match="role does not exist"):
        await parts.broker.authorization(connection, APP, challenge=BASIC)
    asked = len(parts.aws.requests)
    parts.aws.roles = role
    with pytest.raises(Upstream, match="role does not exist"):
        await parts.broker.authorization(connection, APP)
    assert len(parts.aws.requests) == asked
    clock.advance(5)
    await parts.broker.authorization(connection, APP, challenge=BASIC)
    assert parts.counts.exchanges == [("aws", "failed"), ("aws", "ok")]


async def test_a_token_that_ended_before_it_came_is_refused(parts: Clouds) -> None:
    parts.aws.manner.token_lifetime = -60
    connection = await parts.connect_aws()
    with pytest.raises(Upstream, match="expired already"):
        await parts.broker.authorization(connection, APP, challenge=BASIC)


async def test_after_removal_nothing_is_handed_out(parts: Clouds) -> None:
    connection = await parts.connect_aws()
    await parts.broker.authorization(connection, APP, challenge=BASIC)
    await parts.store.remove(connection.host)
    with pytest.raises(Denied, match="not connected any more"):
        await parts.broker.authorization(connection, APP)


async def _bearer(parts: Clouds, tokens: TokenServer) -> tuple[Connection, tuple[Challenge, ...]]:
    host = RegistryHost("127.0.0.1", 5000)
    connection = await parts.connect("google", acme_account().document(), host, INSECURE)
    challenge = Challenge("bearer", {"realm": tokens.realm, "service": tokens.service})
    return connection, (challenge,)


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[tuple[Clouds, TokenServer]]:
    hosts = frozenset({"127.0.0.1:5000"})
    async with clouds(tmp_path, FakeClock(), google_hosts=hosts) as parts:
        admits = parts.google.tokens.accepts_google
        async with TokenServer(admits=admits) as tokens:
            yield parts, tokens


async def test_google_one_access_token_for_many_repositories(
    google: tuple[Clouds, TokenServer],
) -> None:
    parts, tokens = google
    connection, challenge = await _bearer(parts, tokens)
    for scope in (APP, OTHER, APP):
        authorization = await parts.broker.authorization(connection, scope, challenge=challenge)
        assert authorization.header is not None
        bearer = authorization.header.reveal().removeprefix("Bearer ")
        assert tokens.verify(bearer) == {str(scope.repository): frozenset({"pull"})}
    assert len(parts.google.tokens.issued) == 1
    assert len(tokens.requests) == 2


async def test_google_a_day_of_pulls_and_never_an_ended_token(
    google: tuple[Clouds, TokenServer],
) -> None:
    parts, tokens = google
    clock = parts.clock
    assert isinstance(clock, FakeClock)
    connection, challenge = await _bearer(parts, tokens)
    await parts.broker.authorization(connection, APP, challenge=challenge)
    for _ in range(24 * 12):
        clock.advance(300)
        authorization = await parts.broker.authorization(connection, APP)
        assert authorization.expires_at is not None
        assert authorization.expires_at > clock.time()
        await parts.quiet()
    # The registry's tokens last 5 minutes: each exchange of the 288 presented a good access token.
    assert all(seen.authorization for seen in tokens.requests)
    assert len(tokens.issued) == 289
    assert 24 <= len(parts.google.tokens.issued) <= 28


async def test_google_a_revoked_access_token_is_replaced_once(
    google: tuple[Clouds, TokenServer],
) -> None:
    parts, tokens = google
    connection, challenge = await _bearer(parts, tokens)
    await parts.broker.authorization(connection, APP, challenge=challenge)
    parts.google.tokens.revoke_all()
    await parts.broker.authorization(connection, OTHER)
    assert len(parts.google.tokens.issued) == 2


async def test_an_ecr_token_that_ended_early_costs_one_400_and_one_fresh_token(
    tmp_path: Path,
) -> None:
    """ECR says 400, not 401, to a token that has expired."""
    image = small_image()
    async with (
        clouds(tmp_path, SystemClock()) as parts,
        docker_registry(tmp_path / "registry") as registry,
        EcrGate(registry.url, parts.aws.tokens) as gate,
        registry_client(parts.broker) as client,
    ):
        await push(registry.url, "org/app", image, "v1")
        connection = await parts.connect_aws(gate.host)
        stored = await parts.store.change(gate.host, prepared=None, settings=INSECURE)
        connection = stored.connection
        assert APP.repository is not None
        found = await client.manifest(connection, APP.repository, image.index)
        assert found.data == image.manifests[image.index][1]
        parts.aws.tokens.revoke_all()
        await client.manifest(connection, APP.repository, image.index)
        states = [passed.state for passed in gate.requests]
        assert states == [None, State.GOOD, State.EXPIRED, State.GOOD]
        assert len(parts.aws.tokens.issued) == 2


async def test_an_ecr_that_refuses_every_token_is_asked_twice_and_no_more(tmp_path: Path) -> None:
    image = small_image()
    nobodys = IssuedTokens(SystemClock())
    async with (
        clouds(tmp_path, SystemClock()) as parts,
        EcrGate("http://127.0.0.1:9", nobodys) as gate,
        registry_client(parts.broker) as client,
    ):
        await parts.connect_aws(gate.host)
        stored = await parts.store.change(gate.host, prepared=None, settings=INSECURE)
        scope = Scope(APP.repository)
        assert scope.repository is not None
        with pytest.raises(Upstream, match="401"):
            await client.manifest(stored.connection, scope.repository, image.index)
        assert len(parts.aws.tokens.issued) == 2
        assert len(gate.requests) == 3
