"""Every alert provoked once for real: two `facade up`, a Prometheus, and what an operator's day may bring.

The rules are the real ones, with their waiting times and windows shortened on the fly (`hastened`); what counts as
too much, too late or too little stays. One facade (the shop) has its registry, token service, Redis, disk and
database spoilt; the other (the wreck) has metadata and certificates that are about to end.
"""

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
import re
import signal
import ssl
import subprocess
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from facade.demo.image import make_image
from facade.oci.digest import Digest
from tests.bench.cpu import family
from tests.support.crew import workers_of
from tests.support.docker_registry import free_port
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.live import REPOSITORY, Live, live
from tests.support.misbehaviour import chain, header, rate_limited, slow_head, status, trickle
from tests.support.pki import SERVER_AUTH, TRUST_DOMAIN, Authority, load_identity
from tests.support.prometheus import Prometheus, hastened, prometheus
from tests.support.redis_server import RedisServer, redis_server
from tests.support.sqlite_lock import locked
from tests.support.traffic import UNSIGNED, Traffic
from tests.support.tuf_repo import TufRepo
from tests.support.x509_parts import now

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "facade.rules.yml"
ALERTS = re.findall(r"- alert: (\w+)", RULES.read_text())
MAX_WAITING = 100
PATIENCE_SECONDS = 120.0
NOFILE = 2048
STREAMS = 12
WAIT_SECONDS = 4
SLOW_PACE = 6000
"""Bytes a second: more than what counts as a stall."""
LONG_BYTES = int(SLOW_PACE * PATIENCE_SECONDS * 1.2)
"""Of a blob that at this pace outlasts every alert, and that the cache would hold."""
TIMESTAMP_SECONDS = 25

pytestmark = [
    pytest.mark.clients,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass
class Shop:
    """A facade, and what it leans on."""

    it: Live
    redis: RedisServer
    traffic: Traffic
    cache: Path
    long_one: Digest

    def context(self, device: str = "certificates") -> ssl.SSLContext:
        """The TLS of a device."""
        folder = self.it.certificates.with_name(device)
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        context.load_cert_chain(folder / "client.cert", folder / "client.key")
        return context

    async def get(self, paths: Iterable[str], device: str = "certificates") -> list[int]:
        """All of these at once; their statuses (0: cut)."""
        context = self.context(device)
        connector = aiohttp.TCPConnector(limit=0)

        async def one(session: aiohttp.ClientSession, path: str) -> int:
            url = f"https://{self.it.facade.device}{path}"
            try:
                async with session.get(url, ssl=context) as answer:
                    await answer.read()
                    return answer.status
            except aiohttp.ClientError:
                return 0

        async with aiohttp.ClientSession(connector=connector) as session:
            return list(await asyncio.gather(*(one(session, path) for path in paths)))

    def blobs(self, *tags: str) -> list[str]:
        """Paths of all blobs of these images."""
        return [
            self.traffic.path("blobs", digest)
            for tag in tags
            for digest in self.it.images[tag].blobs
        ]

    @property
    def plenty(self) -> list[str]:
        """Paths of more than the cache may hold."""
        return self.blobs("v1", "v3", "v5", "v6")

    async def turn_over(self, paths: Sequence[str]) -> None:
        """All of these, a few at a time; then pruning, which hastens what the cache does by itself."""
        for first in range(0, len(paths), STREAMS):
            await self.get(paths[first : first + STREAMS])
        await self.it.facade.must("cache", "prune")


@dataclass
class Wreck:
    """A facade whose metadata and certificates are about to end."""

    facade: FacadeProcess
    ca: Authority
    server_ca: Path
    tuf: TufRepo
    source: Path

    async def ask(self) -> int:
        """A request of a device of the fleet dev."""
        context = ssl.create_default_context(cafile=self.server_ca)
        load_identity(context, self.ca.device())
        url = f"https://{self.facade.device}/v2/ghcr.io/org/app/manifests/{UNSIGNED}"
        async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as answer:
            return answer.status


@dataclass
class Scene:
    """Everything."""

    shop: Shop
    wreck: Wreck
    prometheus: Prometheus

    async def firing(self, *alerts: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Return when each of them has fired at some time since the beginning."""
        until = time.monotonic() + seconds
        while missing := set(alerts) - await self.fired():
            assert time.monotonic() < until, (
                f"{missing} did not fire\n{self.shop.it.facade.log[-6000:]}"
            )
            await asyncio.sleep(0.5)

    async def fired(self) -> set[str]:
        """All that have fired so far."""
        seen = await self.prometheus.query(
            'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[15m]))'
        )
        return {item["metric"]["alertname"] for item in seen}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("alerts")
    rules = folder / "hastened.rules.yml"
    rules.write_text(hastened(RULES.read_text()))
    for name in ("shop", "wreck"):
        (folder / name).mkdir()
    with small_disk(folder / "disk") as disk:
        async with (
            open_shop(folder / "shop", disk) as shop,
            open_wreck(folder / "wreck") as wreck,
            prometheus(
                folder / "own",
                *(f.metrics.removeprefix("http://") for f in (shop.it.facade, wreck.facade)),
                rules=rules,
            ) as it_saw,
        ):
            await it_saw.until("count(facade_ready) == 2")
            yield Scene(shop, wreck, it_saw)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of 64 MiB: nearly full from the beginning."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=False)


@contextlib.asynccontextmanager
async def open_shop(folder: Path, disk: Path) -> AsyncIterator[Shop]:
    async with redis_server(folder / "redis") as redis:
        env = {
            "FACADE_STORE__URL": f"file://{disk}/cache",
            "FACADE_STORE__MAX_BYTES": "1048576",
            "FACADE_STORE__LOW_WATERMARK": "0.1",
            "FACADE_REDIS__URL": redis.url,
            "FACADE_TRUST__REFRESH_SECONDS": "1",
            "FACADE_TRUST__RESIGN_CHECK_SECONDS": "1",
            "FACADE_DATABASE__MAX_WAITING": str(MAX_WAITING),
            "FACADE_DEVICE__LIMITS__STREAMS": str(STREAMS),
            "FACADE_DEVICE__LIMITS__WAIT": str(WAIT_SECONDS),
            "FACADE_DEVICE__LIMITS__HANDSHAKE": "60",
            "FACADE_DEVICE__LIMITS__HANDSHAKES_PER_ADDRESS": str(NOFILE),
            "FACADE_UPSTREAM__TIMEOUTS__FIRST_BYTE": "3",
            "FACADE_UPSTREAM__TIMEOUTS__UNREACHABLE": "3",
        }
        limits = ("prlimit", f"--nofile={NOFILE}:{NOFILE}")
        async with live(folder, env=env, prefix=limits) as it:
            await it.add()
            await it.import_all()
            await it.facade.must(
                *("device", "issue", "dev/hog", "--out", it.certificates.with_name("hog"))
            )
            yield Shop(it, redis, Traffic(it), disk / "cache", await sign_long_one(it))


async def sign_long_one(it: Live) -> Digest:
    """An image for the fleet dev that nothing else asks for; gives its largest blob, of `LONG_BYTES`."""
    image = make_image(line="a long one", payload_bytes=LONG_BYTES)
    it.registry.add_image(REPOSITORY, image, "long")
    await it.facade.must("artifact", "import", f"{it.host}/{REPOSITORY}:long", "--fleet", "dev")
    return max(image.blobs, key=lambda digest: len(image.blobs[digest]))


@contextlib.asynccontextmanager
async def open_wreck(folder: Path) -> AsyncIterator[Wreck]:
    soon = now() + dt.timedelta(days=5)
    ca = Authority.root("Device CA", not_after=now() + dt.timedelta(days=30))
    server_ca = Authority.root("Server CA")
    own = server_ca.issue(
        "facade", hosts=("127.0.0.1",), usages=(SERVER_AUTH,), not_after=soon
    ).write(folder, "server")
    crl = folder / "stale.crl"
    crl.write_bytes(ca.crl(next_update=now() - dt.timedelta(hours=1)))
    tuf = TufRepo()
    tuf.lifetimes |= {
        "root": dt.timedelta(days=30),
        "targets": dt.timedelta(days=30),
        "dev": dt.timedelta(days=5),
        "snapshot": dt.timedelta(days=1),
        "timestamp": dt.timedelta(days=1),
    }
    source, pinned = folder / "source", folder / "pinned.json"
    pinned.write_bytes(tuf.pinned)
    env = {
        "FACADE_TRUST__SOURCE": str(source),
        "FACADE_TRUST__ROOT": str(pinned),
        "FACADE_TRUST__REFRESH_SECONDS": "1",
        "FACADE_DEVICE__TRUST_DOMAIN": TRUST_DOMAIN,
        "FACADE_DEVICE__SERVER_CERT": str(own.certificate),
        "FACADE_DEVICE__SERVER_KEY": str(own.key),
        "FACADE_DEVICE__CA": json.dumps([{"file": str(ca.write(folder)), "crl": str(crl)}]),
        "FACADE_METRICS__LISTEN": f"127.0.0.1:{free_port()}",  # the same after a restart
    }
    for role in ("root", "targets"):
        tuf.bump(role)
    tuf.publish(fleets=["dev"])
    tuf.write(source)
    async with facade_up(folder / "state", env=env) as facade:
        yield Wreck(facade, ca, server_ca.write(folder, "server-ca.pem"), tuf, source)


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
