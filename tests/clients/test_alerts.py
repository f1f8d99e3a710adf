"""Every alert provoked once for real: two `facade up`, a Prometheus, and what an operator's day may bring.

The rules are the real ones, with their waiting times and windows shortened on the fly (`hastened`); what counts as
too much, too late or too little stays. One facade (the shop) has its registry, token service, Redis, disk and
database spoilt; the other (the wreck) has metadata and certificates that are about to end.
"""

import asyncio
import datetime as dt
import itertools
import os
import signal
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Sequence,
)

import pytest
import pytest_asyncio

from tests.bench.cpu import family
from tests.support.alert_scene import (
    ALERTS,
    MAX_WAITING,
    NOFILE,
    PATIENCE_SECONDS,
    SLOW_PACE,
    STREAMS,
    TIMESTAMP_SECONDS,
    WAIT_SECONDS,
    Scene,
    open_scene,
)
from tests.support.crew import workers_of
from tests.support.misbehaviour import chain, header, rate_limited, slow_head, status, trickle
from tests.support.sqlite_lock import locked
from tests.support.traffic import UNSIGNED

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with open_scene(tmp_path_factory.mktemp("alerts")) as made:
        yield made


async def test_what_ends_soon_or_has_ended(scene: Scene) -> None:
    """First: the wreck's timestamp does not last long. The shop, meanwhile, has nothing to complain of."""
    wreck = scene.wreck
    wreck.tuf.lifetimes["timestamp"] = dt.timedelta(seconds=TIMESTAMP_SECONDS)
    wreck.tuf.publish()
    wreck.tuf.write(wreck.source)
    assert await wreck.ask() == 403
    await scene.firing(
        *("FacadeTimestampNotRenewed", "FacadeSnapshotNotRenewed", "FacadeOfflineRoleExpires"),
        *("FacadeFleetRoleExpires", "FacadeServerCertificateExpires", "FacadeDeviceCaExpires"),
        "FacadeCrlStale",
    )
    assert set(await scene.shop.get(scene.shop.blobs("v1"))) == {200}
    at_ease = {"FacadeDegraded", "FacadeCacheDiskFull"}  # plain http upstream; a small disk
    await scene.firing(*at_ease)
    shops = await scene.prometheus.query(
        f'ALERTS{{alertstate="firing",instance="{scene.shop.it.facade.metrics[7:]}"}}'
    )
    names = {item["metric"]["alertname"] for item in shops}
    assert names - {"FacadeEventLoopLags"} == at_ease  # that one the machine may be to blame for
    await scene.firing("FacadeMetadataExpired", "FacadeNotReady", "FacadeMetadataNotRefreshed")
    assert await wreck.ask() == 503


async def test_devices_that_are_refused_and_that_do_not_get_in(scene: Scene) -> None:
    """And the other facade's serving process ends, and ends again."""
    shop, wreck = scene.shop, scene.wreck.facade
    path = shop.traffic.path("manifests", UNSIGNED)
    os.kill(workers_of(wreck.pid)[0], signal.SIGKILL)
    assert set(await shop.get([path] * 110)) == {403}
    await wreck.logged("worker_replaced", within=PATIENCE_SECONDS)
    os.kill(workers_of(wreck.pid)[0], signal.SIGKILL)
    for _ in range(25):
        await shop.traffic.bare_handshake()
    await scene.firing("FacadeDevicesRefused", "FacadeHandshakesFail", "FacadeWorkersReplaced")


async def test_wrong_bytes(scene: Scene) -> None:
    await scene.shop.traffic.wrong_bytes("v4")
    await scene.firing("FacadeIntegrityFailure")


async def test_a_control_side_in_trouble(scene: Scene) -> None:
    """Its database is locked, its repository lacks a file; then it hangs itself."""
    shop = scene.shop
    facade = shop.it.facade
    path = shop.traffic.path("manifests", UNSIGNED)
    assert await shop.get([path]) == [403]  # the fleet's role is known from here on
    timestamp = facade.state / "trust" / "repository" / "metadata" / "timestamp.json"
    aside = timestamp.rename(timestamp.with_name("aside"))
    try:
        with locked(facade.state / "facade.db"):
            for _ in range(3):
                assert set(await shop.get([path] * MAX_WAITING)) == {403}
            await scene.firing("FacadeReportsDropped", "FacadeResigningFails")
    finally:
        aside.rename(timestamp)
    shop.it.tokens.revoke_all()
    wanted = shop.blobs("v5", "v6")[:STREAMS]
    os.kill(facade.pid, signal.SIGSTOP)
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while 503 not in (answers := await shop.get(wanted)):
            assert time.monotonic() < until, answers
    finally:
        os.kill(facade.pid, signal.SIGCONT)
    await scene.firing("FacadeInternalErrors")


async def test_more_than_the_limits_allow(scene: Scene) -> None:
    """One device wants more streams than it may have, from a registry that takes its time."""
    shop = scene.shop
    path = shop.traffic.path("blobs", shop.long_one)
    shop.it.registry.script("*/blobs/*", trickle(SLOW_PACE // 4, 0.25))

    async def keep_asking() -> None:
        """All slots, and then one more again and again, whatever became of those before: if each asked anew when
        it was refused, all would be refused at the same time, and in that moment nobody would wait.
        """
        async with asyncio.TaskGroup() as asked:
            for number in itertools.count():
                asked.create_task(shop.get([path], "hog"))
                if number >= STREAMS:
                    await asyncio.sleep(WAIT_SECONDS / 8)

    async with asyncio.TaskGroup() as tasks:
        hog = tasks.create_task(keep_asking())
        try:
            await scene.firing("FacadeOverloaded", "FacadeRequestsWait")
        finally:
            shop.it.registry.behave()
            hog.cancel()


async def test_a_registry_in_trouble(scene: Scene) -> None:
    shop = scene.shop
    wanted = shop.blobs("v3", "v5", "v6")[:STREAMS]
    # All of them are out before the first answer opens the circuit.
    for misbehaviour, alert in (
        (chain(slow_head(1), rate_limited("1")), "FacadeUpstreamRateLimits"),
        (status(503), "FacadeUpstreamFails"),
        (status(403), "FacadeUpstreamRefuses"),
    ):
        shop.it.registry.script("*/blobs/*", misbehaviour)
        try:
            await keep(shop.get, wanted, scene.firing(alert))
        finally:
            shop.it.registry.behave()


async def test_a_token_service_and_a_redis_in_trouble(scene: Scene) -> None:
    shop = scene.shop
    await shop.redis.stop()
    shop.it.tokens.revoke_all()
    shop.it.tokens.manner.status = 500
    try:
        wanted = shop.blobs("v5", "v6")[:STREAMS]
        await keep(shop.get, wanted, scene.firing("FacadeTokenExchangeFails", "FacadeRedisDown"))
    finally:
        shop.it.tokens.manner.status = None


async def test_a_cache_that_is_too_small(scene: Scene) -> None:
    """What it may hold (1 MiB) goes through it within the window."""
    shop = scene.shop
    await keep(shop.turn_over, shop.plenty, scene.firing("FacadeCacheTooSmall"))


async def test_a_processor_that_is_full(scene: Scene) -> None:
    """Stopped from outside: to the loop it is the same as a processor that others take."""
    for _ in range(3):
        processes = family(scene.shop.it.facade.pid)
        for number, pause in ((signal.SIGSTOP, 1.2), (signal.SIGCONT, 0.8)):
            for process in processes:
                os.kill(process, number)
            await asyncio.sleep(pause)
    await scene.firing("FacadeEventLoopLags")


async def test_connections_without_number(scene: Scene) -> None:
    host, _, port = scene.shop.it.facade.device.rpartition(":")
    writers = []
    for _ in range(NOFILE * 83 // 100):  # what is kept from connections (256) is a little less
        _, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
    await scene.firing("FacadeDescriptorsRunOut")
    for writer in writers:
        writer.close()


async def test_a_registry_that_announces_little(scene: Scene) -> None:
    """Last of the shop's: from now on it asks at the pace that the budget sustains."""
    shop = scene.shop
    headers = (header("RateLimit-Limit", "100;w=600"), header("RateLimit-Remaining", "2;w=600"))
    shop.it.registry.script("*/blobs/*", chain(*headers))
    try:
        # Whatever is in the cache by now: not all of this is.
        await keep(shop.turn_over, shop.plenty, scene.firing("FacadeUpstreamBudgetUsed"))
    finally:
        shop.it.registry.behave()


async def test_a_clock_that_was_set_back(scene: Scene) -> None:
    wreck = scene.wreck
    await wreck.facade.stop()
    ahead = wreck.facade.state / "trust" / "verified" / "highest-time"
    ahead.write_text(f"{time.time() + 86_400:.0f}\n")
    wreck.tuf.lifetimes["timestamp"] = dt.timedelta(days=1)
    wreck.tuf.publish(fleets=["dev"])
    wreck.tuf.write(wreck.source)
    await wreck.facade.start()
    await scene.prometheus.until(
        f'facade_refusals_total{{reason="clock-set-back",instance="{wreck.facade.metrics[7:]}"}}'
    )
    await keep(lambda _: wreck.ask(), [], scene.firing("FacadeClockSetBack"))


async def test_a_facade_that_is_gone(scene: Scene) -> None:
    """The other one was stopped for a while, so that alone says nothing."""
    wreck = scene.wreck.facade
    await wreck.kill()
    await scene.prometheus.until(
        f'ALERTS{{alertname="FacadeDown",alertstate="firing",instance="{wreck.metrics[7:]}"}}',
        PATIENCE_SECONDS,
    )


async def test_that_was_every_alert(scene: Scene) -> None:
    assert set(ALERTS) <= await scene.fired()


async def keep(
    act: Callable[[Sequence[str]], Awaitable[object]],
    paths: Sequence[str],
    until: Coroutine[object, object, None],
) -> None:
    """Do it again and again until that has come."""

    async def repeat() -> None:
        while True:
            await act(paths)
            await asyncio.sleep(0.2)

    repeating = asyncio.create_task(repeat())
    try:
        await until
    finally:
        repeating.cancel()
        await asyncio.gather(repeating, return_exceptions=True)
