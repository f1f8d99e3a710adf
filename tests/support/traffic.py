"""One of everything that is counted: pulls, hits, joins, refusals, retries, wrong bytes, bad handshakes.

Guarantees: what is done is written down as it is seen from outside (by the device, the registry, the token
service), so that metrics can be compared with somebody else's count. The installation is `tests.support.live`'s;
give it `CACHE_ENV`, whose bounds make it evict.
"""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from facade.oci.digest import Digest
from tests.support.live import REPOSITORY, Answered, Live
from tests.support.misbehaviour import chain, corrupt, slow_head, status, trickle

CACHE_ENV: Mapping[str, str] = {
    "FACADE_STORE__MAX_BYTES": "1048576",
    "FACADE_STORE__LOW_WATERMARK": "0.2",
}
JOINERS = 4
Samples = dict[str, dict[tuple[tuple[str, str], ...], float]]
UNSIGNED = "sha256:" + "e" * 64


@dataclass(slots=True)
class Tally:
    """What was seen from outside.

    Arguments:
        answers: (route, status) of every answer that the device got, in order.
        reasons: of its refusals.
        body_bytes: bytes of manifests and blobs that it received whole.
        cut: transfers that ended before their promised length.
        bad_handshakes: connections without a certificate.
        during: the metrics while several waited for one blob.
    """

    answers: list[tuple[str, int]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    body_bytes: int = 0
    cut: int = 0
    bad_handshakes: int = 0
    during: Samples = field(default_factory=dict)

    def count(self, route: str, code: int) -> int:
        """How often."""
        return self.answers.count((route, code))


class Traffic:
    """Drives one installation; every method adds to `tally`."""

    def __init__(self, it: Live) -> None:
        self.it = it
        self.tally = Tally()

    async def everything(self) -> None:
        """All of it, in an order in which nothing disturbs the rest."""
        it = self.it
        await it.add()
        await it.import_all()
        await self.pull("v1")
        await self.settled()
        await self.pull("v1")
        await self.join("v2")
        it.registry.script("*/blobs/*", status(503), times=1)
        await self.pull("v3")
        await self.refusals()
        await self.wrong_bytes("v4")
        await self.bare_handshake()
        await self.pull("v5")
        await it.facade.must("cache", "prune")

    async def get(self, path: str) -> Answered | None:
        """One request; None when the answer was cut."""
        route = "blobs" if "/blobs/" in path else "manifests"
        try:
            answered = await self.it.get(path)
        except aiohttp.ClientPayloadError:
            self.tally.cut += 1
            return None
        self.tally.answers.append((route, answered.status))
        if answered.status == 200:
            self.tally.body_bytes += len(answered.body)
        else:
            self.tally.reasons.append(answered.reason)
        return answered

    def path(self, kind: str, digest: Digest | str) -> str:
        """Of a pull from the registry, in prefix form."""
        return f"/v2/{self.it.registry.host.path_segment}/{REPOSITORY}/{kind}/{digest}"

    async def pull(self, tag: str) -> None:
        """All of an image, one after the other."""
        image = self.it.images[tag]
        for digest in image.manifests:
            await self.get(self.path("manifests", digest))
        for digest in image.blobs:
            answered = await self.get(self.path("blobs", digest))
            assert answered is not None
            assert answered.status == 200, answered

    async def settled(self) -> None:
        """Return when what was fetched is in the cache: until then, who asks again joins."""
        async with asyncio.timeout(10):
            while (await self.it.facade.must("cache", "status", "--json")).json["in_flight"]:
                pass

    async def join(self, tag: str) -> None:
        """The largest blob, by several at once, from a registry that takes its time."""
        digest = self.largest(tag)
        pattern = f"*/blobs/{digest}"
        self.it.registry.script(pattern, chain(slow_head(0.3), trickle(10_000, 0.1)))
        waiting = [
            asyncio.create_task(self.get(self.path("blobs", digest))) for _ in range(JOINERS)
        ]
        async with asyncio.timeout(10):
            while not _running(self.tally.during):
                self.tally.during = await scrape(self.it)
        await asyncio.gather(*waiting)
        self.it.registry.behave()

    async def refusals(self) -> None:
        """An unsigned digest, a tag, a host that is not connected, something that is no digest."""
        await self.get(self.path("manifests", UNSIGNED))
        await self.get(self.path("manifests", "v1"))
        await self.get(f"/v2/elsewhere.example/a/manifests/{UNSIGNED}")
        await self.get(self.path("manifests", "sha256:abc"))

    async def wrong_bytes(self, tag: str) -> None:
        """The registry spoils a blob: cut, and refused from then on."""
        digest = self.largest(tag)
        self.it.registry.script(f"*/blobs/{digest}", corrupt(at=70_000))
        await self.get(self.path("blobs", digest))
        await self.get(self.path("blobs", digest))
        self.it.registry.behave()

    async def bare_handshake(self) -> None:
        """Somebody without a certificate."""
        context = ssl.create_default_context(cafile=self.it.certificates / "ca.crt")
        host, _, port = self.it.facade.device.rpartition(":")
        with suppress(OSError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            await reader.read(1)  # with TLS 1.3 the refusal comes after the client's Finished
            writer.close()
        self.tally.bad_handshakes += 1

    def largest(self, tag: str) -> Digest:
        """The image's largest blob."""
        blobs = self.it.images[tag].blobs
        return max(blobs, key=lambda digest: len(blobs[digest]))


def _running(metrics: Samples) -> bool:
    names = ("facade_streams_in_flight", "facade_transfers_in_flight")
    streams, transfers = (metrics.get(name, {}).get(()) for name in names)
    return streams == JOINERS and transfers == 1


async def scrape(it: Live) -> Samples:
    """The metrics port: sample name → sorted labels → value."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{it.facade.metrics}/metrics") as got,
    ):
        text = await got.text()
    seen: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            seen.setdefault(sample.name, {})[labels] = sample.value
    return seen
