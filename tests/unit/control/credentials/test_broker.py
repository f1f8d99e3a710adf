"""What the broker presents: Basic, Bearer, a cloud's token; to whom, and for what."""

import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Scope
from tests.support.broker import APP, BASIC, BEARER, OTHER, Parts, broker_parts, header_of
from tests.support.control import connect


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with broker_parts(tmp_path) as parts:
        yield parts


async def test_nothing_is_sent_before_the_registry_asked(parts: Parts) -> None:
    connection = await connect(parts.store)
    assert await parts.broker.authorization(connection, APP) == Authorization(None)
    assert parts.service.asked == []


async def test_basic_is_presented_and_remembered(parts: Parts) -> None:
    connection = await connect(parts.store)
    first = await parts.broker.authorization(connection, APP, challenge=BASIC)
    again = await parts.broker.authorization(connection, OTHER)
    expected = "Basic " + base64.b64encode(b"robot:hunter2").decode()
    assert (header_of(first), header_of(again)) == (expected, expected)
    assert first.expires_at is None
    assert parts.broker.scheme(connection) == "basic"
    assert parts.service.asked == []


async def test_bearer_is_exchanged_once_and_remembered(parts: Parts) -> None:
    connection = await connect(parts.store)
    first = await parts.broker.authorization(connection, APP, challenge=BEARER)
    again = await parts.broker.authorization(connection, APP)
    assert (header_of(first), header_of(again)) == ("Bearer token-1", "Bearer token-1")
    [asked] = parts.service.asked
    assert (asked.username, asked.password) == ("robot", "hunter2")
    assert asked.scope == "repository:org/app:pull"
    assert parts.counts.exchanges == [("static", "ok")]
    assert parts.counts.expiries == [("registry.example", parts.clock.time() + 300)]


async def test_bearer_is_preferred_when_both_are_offered(parts: Parts) -> None:
    connection = await connect(parts.store)
    got = await parts.broker.authorization(connection, APP, challenge=(*BASIC, *BEARER))
    assert header_of(got) == "Bearer token-1"


async def test_an_unknown_scheme_is_refused_in_words(parts: Parts) -> None:
    connection = await connect(parts.store)
    with pytest.raises(Upstream, match="asks for authorization by negotiate"):
        await parts.broker.authorization(connection, APP, challenge=(Challenge("negotiate"),))


async def test_each_repository_has_a_token_of_its_own(parts: Parts) -> None:
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    other = await parts.broker.authorization(connection, OTHER)
    push = await parts.broker.authorization(connection, Scope(APP.repository, ("pull", "push")))
    assert [header_of(other), header_of(push)] == ["Bearer token-2", "Bearer token-3"]


async def test_another_realm_gets_a_token_of_its_own(parts: Parts) -> None:
    """Artifactory names another realm for each repository key."""
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    moved = (Challenge("bearer", {"realm": "https://registry.example/v2/token"}),)
    got = await parts.broker.authorization(connection, APP, challenge=moved)
    assert header_of(got) == "Bearer token-2"
    assert [asked.realm for asked in parts.service.asked] == [
        "https://registry.example/token",
        "https://registry.example/v2/token",
    ]


async def test_anonymous_gets_a_token_without_credentials(parts: Parts) -> None:
    connection = await connect(parts.store, provider="anonymous", username="", secret="")
    got = await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert header_of(got) == "Bearer token-1"
    assert parts.service.asked[0].username is None


async def test_anonymous_asked_for_a_password_says_what_to_do(parts: Parts) -> None:
    connection = await connect(parts.store, provider="anonymous", username="", secret="")
    with pytest.raises(Upstream, match="--username"):
        await parts.broker.authorization(connection, APP, challenge=BASIC)


async def test_a_cloud_token_is_exchanged_once_per_connection(parts: Parts) -> None:
    connection = await connect(parts.store, provider="cloud")
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    await parts.broker.authorization(connection, OTHER)
    assert parts.cloud.exchanged == 1
    assert [(asked.username, asked.password) for asked in parts.service.asked] == [
        ("cloud", "cloud-1")
    ] * 2


async def test_a_cloud_token_that_the_token_service_refuses_is_replaced_once(
    parts: Parts,
) -> None:
    connection = await connect(parts.store, provider="cloud")
    refusal = Upstream("revoked", reason=Reason.UPSTREAM_REFUSED, status=401)
    parts.service.failures = [refusal]
    got = await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert header_of(got) == "Bearer token-2"
    assert [asked.password for asked in parts.service.asked] == ["cloud-1", "cloud-2"]
    parts.clock.advance(299)
    parts.service.failures = [refusal, refusal]
    with pytest.raises(Upstream, match="revoked"):
        await parts.broker.authorization(connection, APP)
    assert parts.cloud.exchanged == 3


async def test_an_eager_cloud_is_presented_unasked_and_replaced_when_refused(
    parts: Parts,
) -> None:
    parts.cloud.eager = True
    connection = await connect(parts.store, provider="cloud")
    first = await parts.broker.authorization(connection, APP)
    assert header_of(first) == "Basic " + base64.b64encode(b"cloud:cloud-1").decode()
    fresh = await parts.broker.authorization(connection, APP, refused=first.id)
    assert header_of(fresh) == "Basic " + base64.b64encode(b"cloud:cloud-2").decode()
    assert fresh.id != first.id
    assert fresh.expires_at == parts.clock.time() + 3600


async def test_no_secret_shows_in_reprs_or_errors(
    parts: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = await connect(parts.store, secret="canary-77")
    basic = await parts.broker.authorization(connection, APP, challenge=BASIC)
    bearer = await parts.broker.authorization(connection, APP, challenge=BEARER)
    shown: list[Callable[[], str]] = [
        lambda: repr((basic, bearer)),
        lambda: str(vars(parts.broker)),
        lambda: repr(parts.broker._cache.__dict__),
        lambda: repr(parts.store.secrets(connection.id)),
    ]
    encoded = base64.b64encode(b"robot:canary-77").decode()
    for show in shown:
        text = show()
        assert not any(secret in text for secret in ("canary-77", encoded, "token-1"))
    captured = capsys.readouterr()
    assert "canary-77" not in captured.out + captured.err
