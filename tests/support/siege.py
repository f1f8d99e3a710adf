"""A real `facade up` that believes a metadata source and a device CA which the test holds the keys of.

Guarantees: the process under attack is the product as it is started, configured by its documented
settings alone; whatever the metadata says, and whoever a certificate names, is the test's choice. What
the facade says is read where an operator reads it: answers, log, metrics, readiness.
"""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp

from facade.demo.image import Image
from facade.oci.digest import Digest
from facade.target import SignedTarget
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import small_image
from tests.support.live import Answered
from tests.support.pki import TRUST_DOMAIN, Authority, Leaf, load_identity
from tests.support.registry import Registry
from tests.support.tuf_repo import TufRepo, signed_target

REPOSITORY = "org/app"
REFRESH_SECONDS = 0.2
PATIENCE_SECONDS = 60.0
BRIEFLY_SECONDS = 5
"""Longer than a busy machine takes to see new metadata; the tests that use it wait for its end."""


@dataclass
class Siege:
    """What a test needs.

    Arguments:
        tuf: signs what the facade believes, with `root_keys` 3, threshold 2.
        ca: may name the fleet dev only; `other_ca` the fleet other only.
        good: signed for dev as dev/app/v1; theirs: for other; evil: signed for nobody.
    """

    facade: FacadeProcess
    registry: Registry
    tuf: TufRepo
    source: Path
    ca: Authority
    other_ca: Authority
    good: Image
    theirs: Image
    evil: Image

    def target(self, image: Image, path: str, repository: str = REPOSITORY) -> SignedTarget:
        """A target for the image, wherever it is said to live."""
        media_type, data = image.manifests[image.index]
        place = f"{self.registry.host}/{repository}"
        return signed_target(path, data, place=place, media_type=media_type)

    def write(self) -> None:
        """Put the repository as it stands before the facade."""
        self.tuf.write(self.source)

    async def publish(self, *targets: SignedTarget, fleets: Sequence[str] = ()) -> None:
        """Sign honestly, and return when the facade uses it."""
        self.tuf.publish(*targets, fleets=fleets)
        mark = len(self.facade.events)
        self.write()
        version = self.tuf.timestamp.version
        await self.event("metadata_in_use", since=mark, where={"timestamp": version})

    async def publish_briefly(self) -> None:
        """Sign a timestamp that lasts for seconds only, and return when the facade uses it."""
        before = self.tuf.lifetimes["timestamp"]
        self.tuf.lifetimes["timestamp"] = timedelta(seconds=BRIEFLY_SECONDS)
        try:
            await self.publish()
        finally:
            self.tuf.lifetimes["timestamp"] = before

    async def expiry(self) -> None:
        """Return when the timestamp that was signed last has expired."""
        left = self.tuf.timestamp.expires - datetime.now(UTC)
        await asyncio.sleep(max(0.0, left.total_seconds()) + 0.2)

    async def event(
        self, name: str, *, since: int = 0, where: Mapping[str, int] | None = None, words: str = ""
    ) -> dict[str, Any]:
        """The first such log line from number `since` on, when it has come.

        Arguments:
            where: versions that it has to name; words: that it has to hold somewhere.
        """
        wanted = (where or {}).items()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for found in self.facade.events[since:]:
                versions = str(found.get("versions")).split()
                if (
                    found["event"] == name
                    and all(f"{role}:{number}" in versions for role, number in wanted)
                    and words in json.dumps(found)
                ):
                    return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {name} {where or words} in:\n{self.facade.log[-6000:]}")

    async def get(self, path: str, leaf: Leaf | None = None) -> Answered:
        """One request of a device, on a connection of its own."""
        context = self.context(leaf)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://{self.facade.device}{path}", ssl=context) as response,
        ):
            return Answered(response.status, await response.read(), dict(response.headers))

    def context(self, leaf: Leaf | None = None) -> ssl.SSLContext:
        """A device's TLS context: that of dev/kiosk-7, unless another certificate is given."""
        context = ssl.create_default_context(cafile=self.facade.state / "server-ca.pem")
        load_identity(context, leaf or self.ca.device())
        return context

    def at(self, image: Image, repository: str = REPOSITORY) -> str:
        """Where a device asks for the image's index."""
        return self.path("manifests", image.index, repository)

    def path(self, kind: str, digest: Digest, repository: str = REPOSITORY) -> str:
        """Where a device asks for anything of the registry."""
        return f"/v2/{self.registry.host}/{repository}/{kind}/{digest}"

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """What a balancer is told."""
        async with aiohttp.ClientSession() as session, session.get(self._probe("readyz")) as answer:
            return answer.status, await answer.json()

    async def complaints(self) -> list[str]:
        """Why readiness is not all well, but for the plain http that these tests speak upstream."""
        status, body = await self.ready()
        assert (status, body["status"]) == (200, "degraded")
        return [reason for reason in body["reasons"] if "plain http" not in reason]

    async def metric(self, name: str) -> float:
        """A sample by name and labels as they are exposed; 0 when it is not there yet."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(self._probe("metrics")) as answer,
        ):
            for line in (await answer.text()).splitlines():
                if line.startswith(f"{name} "):
                    return float(line.rpartition(" ")[2])
        return 0.0

    def _probe(self, name: str) -> str:
        return f"{self.facade.metrics}/{name}"


@contextlib.asynccontextmanager
async def siege(folder: Path) -> AsyncIterator[Siege]:
    """Start it all: good and theirs are signed and in use, evil lies in the registry too."""
    ca, other_ca = Authority.root("Device CA"), Authority.root("Other Device CA")
    cas = [
        {"file": str(authority.write(folder / name)), "fleets": [name]}
        for name, authority in (("dev", ca), ("other", other_ca))
    ]
    tuf = TufRepo(("dev", "other"), root_keys=3, root_threshold=2)
    source = folder / "source"
    tuf.write(source)
    pinned = folder / "pinned.json"
    pinned.write_bytes(tuf.pinned)
    env = {
        "FACADE_TRUST__SOURCE": str(source),
        "FACADE_TRUST__ROOT": str(pinned),
        "FACADE_TRUST__REFRESH_SECONDS": str(REFRESH_SECONDS),
        "FACADE_DEVICE__TRUST_DOMAIN": TRUST_DOMAIN,
        "FACADE_DEVICE__CA": json.dumps(cas),
    }
    async with Registry() as registry, facade_up(folder / "state", env=env) as facade:
        images = [small_image(line) for line in ("good", "theirs", "evil")]
        for image in images:
            registry.add_image(REPOSITORY, image)
        await facade.must("registry", "add", str(registry.host), "--anonymous", "--insecure")
        it = Siege(facade, registry, tuf, source, ca, other_ca, *images)
        await it.publish(
            it.target(it.good, "dev/app/v1"), it.target(it.theirs, "other/app/v1"), fleets=()
        )
        yield it
