"""What a soak runs against: a real `facade up`, its upstream and token service, artifacts, devices.

Guarantees: the facade is configured by its documented settings alone; operator actions go through its API, as a
console's would. Time limits are shortened so that faults end within a soak of minutes.
"""

import contextlib
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from facade.control.devices.development import DeviceKey
from facade.demo.image import Image, make_image
from tests.soak.ledger import Ledger, Standing
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.registry import BearerAuth, Registry
from tests.support.token_server import Account, TokenServer

REPOSITORY = "acme/kiosk"
PASSWORD = "soak-Pa55word"
TOKEN_SECONDS = 60.0
CACHE_BYTES = 48 * 1024 * 1024
PAYLOAD_BYTES = (300_000, 2_000_000, 6_000_000)
"""Sizes of the images' layers, in turn: together more than the cache holds."""
FIRST_IMAGES = 12
ENV = {
    "FACADE_STORE__MAX_BYTES": str(CACHE_BYTES),
    "FACADE_STORE__LOW_WATERMARK": "0.7",
    "FACADE_TRUST__REFRESH_SECONDS": "5",
    "FACADE_UPSTREAM__TIMEOUTS__STALL": "3",
    "FACADE_UPSTREAM__TIMEOUTS__UNREACHABLE": "6",
    "FACADE_UPSTREAM__TIMEOUTS__FIRST_BYTE": "10",
    "FACADE_DEVICE__LIMITS__WAIT": "10",
}


@dataclass(slots=True)
class Artifact:
    """A signed image, for as long as it stands."""

    tag: str
    image: Image
    standing: Standing = field(default_factory=Standing)


@dataclass(slots=True)
class Person:
    """A device: its TLS context, for as long as it stands."""

    name: str
    context: ssl.SSLContext
    standing: Standing = field(default_factory=Standing)


@dataclass
class World:
    """All of it."""

    facade: FacadeProcess
    registry: Registry
    tokens: TokenServer
    operator: aiohttp.ClientSession
    folder: Path
    ledger: Ledger = field(default_factory=Ledger)
    artifacts: list[Artifact] = field(default_factory=list)
    made: int = 0

    @property
    def signed(self) -> list[Artifact]:
        """Those that stand."""
        return [artifact for artifact in self.artifacts if not artifact.standing.may_be_refused]

    async def api(self, method: str, path: str, **body: Any) -> Any:
        """One call of the operator API; its JSON. Raises AssertionError for anything but 2xx."""
        url = f"{self.facade.operator}/api/v1{path}"
        async with self.operator.request(method, url, json=body or None) as answer:
            document = await answer.json() if answer.content_type == "application/json" else {}
            assert answer.ok, (method, path, answer.status, document)
            return document

    async def ship(self) -> Artifact:
        """Make an image, put it upstream, import it."""
        self.made += 1
        tag = f"v{self.made}"
        image = make_image(
            line=f"soak {self.made}",
            payload_bytes=PAYLOAD_BYTES[self.made % len(PAYLOAD_BYTES)] + self.made,
        )
        self.registry.add_image(REPOSITORY, image, tag)
        answer = await self.api(
            "POST",
            "/imports",
            host=str(self.registry.host),
            repository=REPOSITORY,
            tags=[tag],
            fleet="dev",
        )
        (result,) = answer["results"]
        if result["status"] != "imported":
            raise ImportFailedError(result.get("error", ""))
        artifact = Artifact(tag, image)
        self.artifacts.append(artifact)
        return artifact

    async def withdraw(self, artifact: Artifact) -> None:
        """Take it back; its bytes leave the upstream as well."""
        artifact.standing.ended = 0.0
        await self.api("DELETE", f"/artifacts/dev/kiosk/{artifact.tag}")
        artifact.standing.ended = time.monotonic()

    async def enrol(self, name: str) -> Person:
        """A device with a certificate of the facade's own CA."""
        request = DeviceKey.create()
        issued = await self.api(
            "POST",
            "/devices",
            fleet="dev",
            name=name,
            csr=request.csr,
        )
        context = ssl.create_default_context(cadata=issued["ca"])
        with tempfile.NamedTemporaryFile(dir=self.folder) as file:
            file.write(request.key_pem + issued["certificate"].encode())
            file.flush()
            context.load_cert_chain(file.name)
        return Person(name, context)

    async def revoke(self, person: Person) -> None:
        """Decommission a device."""
        person.standing.ended = 0.0
        await self.api("POST", f"/devices/dev/{person.name}/revoke", serial=None)
        person.standing.ended = time.monotonic()

    async def metrics(self) -> dict[str, float]:
        """Every sample by its name, summed over labels."""
        sums: dict[str, float] = {}
        for name, _, value in await self._samples():
            sums[name] = sums.get(name, 0.0) + value
        return sums

    async def refusals(self, *reasons: str) -> float:
        """How many requests were refused for these reasons."""
        return sum(
            value
            for name, labels, value in await self._samples()
            if name == "facade_refusals_total"
            and any(f'reason="{reason}"' in labels for reason in reasons)
        )

    async def _samples(self) -> list[tuple[str, str, float]]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.facade.metrics}/metrics") as answer,
        ):
            text = await answer.text()
        found = []
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                family, _, labels = name.partition("{")
                found.append((family, labels, float(value)))
        return found


class ImportFailedError(Exception):
    """The upstream was in no state to import from: not the facade's fault."""


@contextlib.asynccontextmanager
async def world(folder: Path, *, workers: int | None = None) -> AsyncIterator[World]:
    """Start everything and sign the first images."""
    env = dict(ENV)
    if workers is not None:
        env["FACADE_DEVICE__WORKERS"] = str(workers)
    async with (
        TokenServer({"bot": Account(PASSWORD)}) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        facade_up(folder / "state", env=env) as facade,
    ):
        tokens.manner.lifetime = TOKEN_SECONDS
        key = (folder / "state" / "api-key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(
            headers=headers, timeout=aiohttp.ClientTimeout(total=120)
        ) as operator:
            made = World(facade, registry, tokens, operator, folder)
            await made.api(
                "POST",
                "/connections",
                host=str(registry.host),
                provider="static",
                username="bot",
                secret=PASSWORD,
                settings={"insecure": True},
            )
            for _ in range(FIRST_IMAGES):
                await made.ship()
            yield made
