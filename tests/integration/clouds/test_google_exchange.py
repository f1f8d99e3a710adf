"""The Google provider against an endpoint that verifies the assertion's signature, audience and time."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.errors import Upstream
from facade.reasons import Reason
from tests.support.clock import FakeClock
from tests.support.cloud_google import ServiceAccount, acme_account
from tests.support.cloud_parts import ARTIFACT_REGISTRY, Clouds, clouds
from tests.support.raw_http import Data, Reply


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Clouds]:
    async with clouds(tmp_path, FakeClock(auto=True)) as parts:
        yield parts


async def _refused(parts: Clouds, words: str) -> Upstream:
    connection = await parts.connect_google()
    with pytest.raises(Upstream, match=words) as caught:
        await parts.present(connection)
    return caught.value


async def test_a_key_is_exchanged_for_a_token(parts: Clouds) -> None:
    presented = await parts.present(await parts.connect_google())
    assert presented.basic is not None
    assert parts.google.tokens.accepts_google(
        presented.basic.username, presented.basic.password.reveal()
    )
    assert presented.expires_at == parts.clock.time() + 3599
    assert len(parts.google.requests) == 1


async def test_it_is_asked_for_reading_only(parts: Clouds) -> None:
    await parts.present(await parts.connect_google())
    [scopes] = parts.google.scopes
    assert all(scope.endswith(("read_only", "read-only")) for scope in scopes.split())


async def test_a_key_that_was_deleted(parts: Clouds) -> None:
    parts.google.accounts.clear()
    error = await _refused(parts, "not one of the service account's .* facade registry rotate")
    assert error.reason is Reason.UPSTREAM_REFUSED


async def test_an_account_that_was_deleted(parts: Clouds) -> None:
    account = acme_account()
    other = ServiceAccount("other@acme.example", account.key_id, account.private_key)
    parts.google.accounts = {account.key_id: other}
    await _refused(parts, "service account does not exist")


async def test_another_accounts_key_under_this_name(parts: Clouds) -> None:
    """A forged file: known account, foreign key."""
    forged = ServiceAccount.make()
    document = acme_account().document(private_key=forged.pem)
    connection = await parts.connect("google", document, ARTIFACT_REGISTRY)
    with pytest.raises(Upstream, match="not one of the service account's"):
        await parts.present(connection)


@pytest.mark.parametrize(("ahead", "way"), [(900, "behind"), (-900, "ahead of")])
async def test_a_clock_that_is_off(parts: Clouds, ahead: float, way: str) -> None:
    # The assertion ends an hour after its start, so a clock that is behind is forgiven long.
    parts.google.manner.clock_ahead = ahead * (5 if ahead > 0 else 1)
    await _refused(parts, rf"the clock here is \d+ s {way} Google's")


async def test_a_token_that_has_lived_already_ends_earlier(parts: Clouds) -> None:
    parts.google.manner.clock_ahead = 200  # its Date, too: skew does not count as life
    presented = await parts.present(await parts.connect_google())
    assert presented.expires_at == parts.clock.time() + 3599


async def test_an_outage_is_tried_again_by_us(parts: Clouds) -> None:
    parts.google.manner.refusals = [(503, "backend_error", ""), (500, "internal_failure", "")]
    assert (await parts.present(await parts.connect_google())).basic is not None
    assert len(parts.google.requests) == 3


async def test_an_outage_that_lasts(parts: Clouds) -> None:
    parts.google.manner.raw = Reply(503)
    await _refused(parts, "failed at an access token .503.. Try again later")
    assert len(parts.google.requests) == 3


async def test_a_rate_limit(parts: Clouds) -> None:
    parts.google.manner.raw = Reply(429, (("Retry-After", "3600"),))
    assert (await _refused(parts, "limits the rate")).reason is Reason.UPSTREAM_RATE_LIMITED


async def test_an_endpoint_that_cannot_be_reached(parts: Clouds) -> None:
    connection = await parts.connect_google()
    await parts.google.__aexit__(None, None, None)
    with pytest.raises(Upstream, match="cannot be reached") as caught:
        await parts.present(connection)
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
    await parts.google.__aenter__()


async def test_an_endpoint_that_is_something_else(parts: Clouds) -> None:
    parts.google.manner.raw = Reply(200, content=Data(b"<html>Welcome to the hotel Wi-Fi</html>"))
    await _refused(parts, "not understood")


async def test_an_endpoint_at_an_inner_address_is_refused(tmp_path: Path) -> None:
    async with clouds(tmp_path, FakeClock(auto=True), allow=()) as parts:
        await _refused(parts, "allow_cidrs")
        assert parts.google.requests == []


async def test_an_exchange_that_is_cancelled_leaves_no_thread_behind(parts: Clouds) -> None:
    parts.google.manner.raw = Reply(200, delay=60)
    connection = await parts.connect_google()
    before = threading.active_count()
    exchange = asyncio.create_task(parts.present(connection))
    while not parts.google.requests:  # noqa: ASYNC110 - a thread and a socket, real time
        await asyncio.sleep(0.01)
    exchange.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange
    # The executor's threads stay, idle: another exchange finds one, and is served.
    parts.google.manner.raw = None
    for _ in range(10):
        assert (await parts.present(connection)).basic is not None
    assert threading.active_count() <= before + 2
