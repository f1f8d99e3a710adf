import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from facade.control.connections.store import ConnectionStore
from facade.control.credentials.broker import TokenBroker
from facade.control.credentials.cache.memory import MemoryTokenCache
from facade.control.credentials.model import Prepared
from facade.control.credentials.providers import ProviderContext, Providers
from facade.errors import Denied, Upstream
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization, Scope
from tests.support.clock import FakeClock, settle
from tests.support.control import CloudProvider, ScriptedTokenService, connect, fresh_store

APP = Scope(Repository.parse("org/app"))
OTHER = Scope(Repository.parse("org/other"))
BASIC = (Challenge("basic", {"realm": "here"}),)
BEARER = (Challenge("bearer", {"realm": "https://registry.example/token", "service": "r"}),)


@dataclass
class Counts:
    exchanges: list[tuple[str, str]] = field(default_factory=list)
    expiries: list[tuple[str, float | None]] = field(default_factory=list)

    def exchanged(self, provider: str, outcome: str) -> None:
        self.exchanges.append((provider, outcome))

    def token_expires(self, host: str, at: float | None) -> None:
        self.expiries.append((host, at))


@dataclass
class Parts:
    clock: FakeClock
    store: ConnectionStore
    service: ScriptedTokenService
    cloud: CloudProvider
    counts: Counts
    broker: TokenBroker


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    clock = FakeClock()
    service, cloud, counts = ScriptedTokenService(clock), CloudProvider(clock), Counts()
    async with fresh_store(tmp_path, clock) as store:
        broker = TokenBroker(
            connections=store,
            providers=Providers(ProviderContext(clock), {"cloud": cloud}),
            tokens=service,
            cache=MemoryTokenCache(clock),
            clock=clock,
            chance=lambda: 0.0,
            observer=counts,
        )
        store.on_forget(broker.forget)
        yield Parts(clock, store, service, cloud, counts, broker)
        await broker.close()


def _header(authorization: Authorization) -> str | None:
    return None if authorization.header is None else authorization.header.reveal()


async def test_nothing_is_sent_before_the_registry_asked(parts: Parts) -> None:
    connection = await connect(parts.store)
    assert await parts.broker.authorization(connection, APP) == Authorization(None)
    assert parts.service.asked == []


async def test_basic_is_presented_and_remembered(parts: Parts) -> None:
    connection = await connect(parts.store)
    first = await parts.broker.authorization(connection, APP, challenge=BASIC)
    again = await parts.broker.authorization(connection, OTHER)
    expected = "Basic " + base64.b64encode(b"robot:hunter2").decode()
    assert (_header(first), _header(again)) == (expected, expected)
    assert first.expires_at is None
    assert parts.broker.scheme(connection) == "basic"
    assert parts.service.asked == []


async def test_bearer_is_exchanged_once_and_remembered(parts: Parts) -> None:
    connection = await connect(parts.store)
    first = await parts.broker.authorization(connection, APP, challenge=BEARER)
    again = await parts.broker.authorization(connection, APP)
    assert (_header(first), _header(again)) == ("Bearer token-1", "Bearer token-1")
    [asked] = parts.service.asked
    assert (asked.username, asked.password) == ("robot", "hunter2")
    assert asked.scope == "repository:org/app:pull"
    assert parts.counts.exchanges == [("static", "ok")]
    assert parts.counts.expiries == [("registry.example", parts.clock.time() + 300)]


async def test_bearer_is_preferred_when_both_are_offered(parts: Parts) -> None:
    connection = await connect(parts.store)
    got = await parts.broker.authorization(connection, APP, challenge=(*BASIC, *BEARER))
    assert _header(got) == "Bearer token-1"


async def test_an_unknown_scheme_is_refused_in_words(parts: Parts) -> None:
    connection = await connect(parts.store)
    with pytest.raises(Upstream, match="asks for authorization by negotiate"):
        await parts.broker.authorization(connection, APP, challenge=(Challenge("negotiate"),))


async def test_each_repository_has_a_token_of_its_own(parts: Parts) -> None:
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    other = await parts.broker.authorization(connection, OTHER)
    push = await parts.broker.authorization(connection, Scope(APP.repository, ("pull", "push")))
    assert [_header(other), _header(push)] == ["Bearer token-2", "Bearer token-3"]


async def test_another_realm_gets_a_token_of_its_own(parts: Parts) -> None:
    """Artifactory names another realm for each repository key."""
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    moved = (Challenge("bearer", {"realm": "https://registry.example/v2/token"}),)
    got = await parts.broker.authorization(connection, APP, challenge=moved)
    assert _header(got) == "Bearer token-2"
    assert [asked.realm for asked in parts.service.asked] == [
        "https://registry.example/token",
        "https://registry.example/v2/token",
    ]


async def test_anonymous_gets_a_token_without_credentials(parts: Parts) -> None:
    connection = await connect(parts.store, provider="anonymous", username="", secret="")
    got = await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert _header(got) == "Bearer token-1"
    assert parts.service.asked[0].username is None


async def test_anonymous_asked_for_a_password_says_what_to_do(parts: Parts) -> None:
    connection = await connect(parts.store, provider="anonymous", username="", secret="")
    with pytest.raises(Upstream, match="--username"):
        await parts.broker.authorization(connection, APP, challenge=BASIC)


async def test_500_waiters_one_exchange(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.gate = asyncio.Event()
    waiters = [
        asyncio.create_task(parts.broker.authorization(connection, APP, challenge=BEARER))
        for _ in range(500)
    ]
    await settle()
    parts.service.gate.set()
    got = await asyncio.gather(*waiters)
    assert {_header(authorization) for authorization in got} == {"Bearer token-1"}
    assert len(parts.service.asked) == 1


async def test_the_leaders_cancellation_reaches_nobody(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.gate = asyncio.Event()
    leader, *others = (
        asyncio.create_task(parts.broker.authorization(connection, APP, challenge=BEARER))
        for _ in range(5)
    )
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    parts.service.gate.set()
    got = await asyncio.gather(*others)
    assert {_header(authorization) for authorization in got} == {"Bearer token-1"}
    assert len(parts.service.asked) == 1


async def test_all_waiters_gone_the_exchange_still_ends_in_the_cache(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.gate = asyncio.Event()
    only = asyncio.create_task(parts.broker.authorization(connection, APP, challenge=BEARER))
    await settle()
    only.cancel()
    parts.service.gate.set()
    await settle()
    assert _header(await parts.broker.authorization(connection, APP)) == "Bearer token-1"
    assert len(parts.service.asked) == 1


async def test_a_refused_token_is_exchanged_once_for_all_who_name_it(parts: Parts) -> None:
    connection = await connect(parts.store)
    bad = await parts.broker.authorization(connection, APP, challenge=BEARER)
    got = await asyncio.gather(
        *(parts.broker.authorization(connection, APP, refused=bad.id) for _ in range(20))
    )
    late = await parts.broker.authorization(connection, APP, refused=bad.id)
    assert {_header(authorization) for authorization in (*got, late)} == {"Bearer token-2"}
    assert len(parts.service.asked) == 2


async def test_a_refused_password_is_given_again_under_the_same_id(parts: Parts) -> None:
    """There is no other one; the caller sees that it is the same and gives up."""
    connection = await connect(parts.store)
    first = await parts.broker.authorization(connection, APP, challenge=BASIC)
    again = await parts.broker.authorization(connection, APP, refused=first.id)
    assert again == first


async def test_a_failure_is_told_to_all_and_remembered_for_seconds_only(parts: Parts) -> None:
    connection = await connect(parts.store)
    refusal = Upstream("wrong password", reason=Reason.UPSTREAM_REFUSED, status=401)
    parts.service.failures = [refusal]
    results = await asyncio.gather(
        *(parts.broker.authorization(connection, APP, challenge=BEARER) for _ in range(50)),
        return_exceptions=True,
    )
    assert {str(result) for result in results} == {"wrong password"}
    with pytest.raises(Upstream, match="wrong password"):
        await parts.broker.authorization(connection, APP)
    assert len(parts.service.asked) == 1
    parts.clock.advance(3)
    assert _header(await parts.broker.authorization(connection, APP)) == "Bearer token-2"
    assert parts.counts.exchanges == [("static", "failed"), ("static", "ok")]


async def test_repaired_credentials_work_at_once(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.failures = [Upstream("no", reason=Reason.UPSTREAM_REFUSED, status=401)]
    with pytest.raises(Upstream):
        await parts.broker.authorization(connection, APP, challenge=BEARER)
    await parts.store.change(
        connection.host, prepared=Prepared("robot", {"secret": Secret("right")})
    )
    got = await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert _header(got) == "Bearer token-2"
    assert parts.service.asked[1].password == "right"


async def test_a_rotated_connection_never_gets_its_old_token(parts: Parts) -> None:
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    await parts.store.change(connection.host, prepared=Prepared("robot", {"secret": Secret("x")}))
    got = await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert _header(got) == "Bearer token-2"


async def test_removal_ends_cached_tokens_and_running_exchanges(parts: Parts) -> None:
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    parts.service.gate = asyncio.Event()
    running = asyncio.create_task(parts.broker.authorization(connection, OTHER))
    await settle()
    await parts.store.remove(connection.host)
    parts.service.gate.set()
    with pytest.raises(Denied, match="not connected any more"):
        await running
    with pytest.raises(Denied):
        await parts.broker.authorization(connection, APP)


async def test_a_token_that_has_ended_on_arrival_is_not_handed_out(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.lifetime = lambda: 0.0
    with pytest.raises(Upstream, match="expired already"):
        await parts.broker.authorization(connection, APP, challenge=BEARER)


async def test_a_failed_refresh_leaves_the_old_token_in_use_until_its_last_seconds(
    parts: Parts,
) -> None:
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    parts.clock.advance(275)
    parts.service.failures = [Upstream("down", reason=Reason.UPSTREAM_UNREACHABLE)] * 2
    assert _header(await parts.broker.authorization(connection, APP)) == "Bearer token-1"
    await settle()
    assert len(parts.service.asked) == 2
    parts.clock.advance(21)
    with pytest.raises(Upstream, match="down"):
        await parts.broker.authorization(connection, APP)


async def test_over_days_and_thousands_of_pulls_never_an_expired_token(parts: Parts) -> None:
    connection = await connect(parts.store)
    rng = random.Random(7)
    parts.service.lifetime = lambda: rng.choice([10.0, 60.0, 300.0, 3600.0])
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    started, pulls = parts.clock.time(), 0
    while parts.clock.time() < started + 3 * 86_400:
        got = await parts.broker.authorization(connection, APP)
        header = _header(got)
        assert header is not None
        assert parts.clock.time() < parts.service.ends[header.removeprefix("Bearer ")]
        await settle()
        pulls += 1
        parts.clock.advance(rng.choice([0.1, 1, 5, 20, 60, 300, 600]))
    assert pulls > 1500
    assert 100 < len(parts.service.asked) < pulls


async def test_a_refresh_ahead_keeps_pulls_from_waiting(parts: Parts) -> None:
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    parts.clock.advance(270)
    assert _header(await parts.broker.authorization(connection, APP)) == "Bearer token-1"
    await settle()
    assert _header(await parts.broker.authorization(connection, APP)) == "Bearer token-2"


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
    assert _header(got) == "Bearer token-2"
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
    assert _header(first) == "Basic " + base64.b64encode(b"cloud:cloud-1").decode()
    fresh = await parts.broker.authorization(connection, APP, refused=first.id)
    assert _header(fresh) == "Basic " + base64.b64encode(b"cloud:cloud-2").decode()
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
