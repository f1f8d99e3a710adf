"""The scene of the alerts: a shop that is spoilt, a wreck that is about to end, and a Prometheus that watches both.

The rules are the real ones, hastened. One facade (the shop) has its registry, token service, Redis, disk and
database spoilt by tests; the other (the wreck) has metadata and certificates that are about to end.
"""

import asyncio
import contextlib
import datetime as dt
import json
import re
import ssl
import subprocess
import time
from collections.abc import (
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from facade.demo.image import make_image
from facade.oci.digest import Digest
from tests.support.docker_registry import free_port
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.live import REPOSITORY, Live, live
from tests.support.pki import SERVER_AUTH, TRUST_DOMAIN, Authority, load_identity
from tests.support.prometheus import Prometheus, hastened, prometheus
from tests.support.redis_server import RedisServer, redis_server
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


@contextlib.asynccontextmanager
async def open_scene(folder: Path) -> AsyncIterator[Scene]:
    """All of it, while the block runs."""
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
