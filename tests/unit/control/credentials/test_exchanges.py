"""One exchange at a time, refreshed ahead, never expired, whoever leaves."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.control.credentials.model import Prepared
from facade.errors import Denied, Upstream
from facade.reasons import Reason
from facade.secret import Secret
from facade.upstream.challenge import Challenge
from facade.upstream.connection import Authorization
from tests.support.broker import APP, BASIC, BEARER, OTHER, Parts, broker_parts, header_of
from tests.support.clock import settle
from tests.support.control import connect


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with broker_parts(tmp_path) as parts:
        yield parts


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
    assert {header_of(authorization) for authorization in got} == {"Bearer token-1"}
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
    assert {header_of(authorization) for authorization in got} == {"Bearer token-1"}
    assert len(parts.service.asked) == 1


async def test_all_waiters_gone_the_exchange_still_ends_in_the_cache(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.gate = asyncio.Event()
    only = asyncio.create_task(parts.broker.authorization(connection, APP, challenge=BEARER))
    await settle()
    only.cancel()
    parts.service.gate.set()
    await settle()
    assert header_of(await parts.broker.authorization(connection, APP)) == "Bearer token-1"
    assert len(parts.service.asked) == 1


async def test_a_refused_token_is_exchanged_once_for_all_who_name_it(parts: Parts) -> None:
    connection = await connect(parts.store)
    bad = await parts.broker.authorization(connection, APP, challenge=BEARER)
    got = await asyncio.gather(
        *(parts.broker.authorization(connection, APP, refused=bad.id) for _ in range(20))
    )
    late = await parts.broker.authorization(connection, APP, refused=bad.id)
    assert {header_of(authorization) for authorization in (*got, late)} == {"Bearer token-2"}
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
    got = await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert header_of(got) == "Bearer token-2"
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
    assert header_of(got) == "Bearer token-2"
    assert parts.service.asked[1].password == "right"


async def test_a_rotated_connection_never_gets_its_old_token(parts: Parts) -> None:
    connection = await connect(parts.store)
    await parts.broker.authorization(connection, APP, challenge=BEARER)
    await parts.store.change(connection.host, prepared=Prepared("robot", {"secret": Secret("x")}))
    got = await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert header_of(got) == "Bearer token-2"


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
    assert header_of(await parts.broker.authorization(connection, APP)) == "Bearer token-1"
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
        header = header_of(got)
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
    assert header_of(await parts.broker.authorization(connection, APP)) == "Bearer token-1"
    await settle()
    assert header_of(await parts.broker.authorization(connection, APP)) == "Bearer token-2"


async def test_a_longer_retry_after_is_remembered_but_not_for_long(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.failures = [
        Upstream("slow down", reason=Reason.UPSTREAM_RATE_LIMITED, status=429, retry_after=3600)
    ]
    for seconds in (0, 14):
        parts.clock.advance(seconds)
        with pytest.raises(Upstream, match="slow down"):
            await parts.broker.authorization(connection, APP, challenge=BEARER)
    assert len(parts.service.asked) == 1
    parts.clock.advance(1)
    assert header_of(await parts.broker.authorization(connection, APP)) == "Bearer token-2"


async def test_closing_stops_running_exchanges(parts: Parts) -> None:
    connection = await connect(parts.store)
    parts.service.gate = asyncio.Event()
    waiter = asyncio.create_task(parts.broker.authorization(connection, APP, challenge=BEARER))
    await settle()
    await parts.broker.close()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_after_a_failure_the_registry_is_asked_anew_where_to_go(parts: Parts) -> None:
    """It once named a token service that cannot be used; corrected, it works without an operator."""
    connection = await connect(parts.store)
    parts.service.failures = [Upstream("another party", reason=Reason.UPSTREAM_REFUSED)]
    with pytest.raises(Upstream):
        await parts.broker.authorization(connection, APP, challenge=BEARER)
    with pytest.raises(Upstream, match="another party"):
        await parts.broker.authorization(connection, APP)
    parts.clock.advance(3)
    assert await parts.broker.authorization(connection, APP) == Authorization(None)
    corrected = (Challenge("bearer", {"realm": "https://registry.example/other"}),)
    got = await parts.broker.authorization(connection, APP, challenge=corrected)
    assert header_of(got) == "Bearer token-2"
