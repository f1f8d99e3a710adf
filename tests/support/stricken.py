"""A real `facade up` over an upstream that a test breaks, and what its operator sees of it.

Guarantees: the facade is the product as it is started, driven by its command line and its API; the
upstream is the scriptable registry; every blob is an image of its own, made and signed when a test
asks for it. What the facade says is read where an operator reads it: log, metrics, readiness, and
`registry show`. The device reads bodies as a client would, and knows whether one was cut.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path
from typing import Any

import aiohttp

from facade.oci.digest import Digest
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import Image, one_layer_image
from tests.support.live import Answered
from tests.support.registry import Registry

REPOSITORY = "acme/kiosk"
PATIENCE_SECONDS = 60.0
HELD = 64 * 1024
QUICK = {
    "FACADE_UPSTREAM__TIMEOUTS__CONNECT": "2",
    "FACADE_UPSTREAM__TIMEOUTS__UNREACHABLE": "2",
    "FACADE_UPSTREAM__TIMEOUTS__FIRST_BYTE": "5",
    "FACADE_UPSTREAM__TIMEOUTS__STALL": "1",
}
"""Upstream time limits under which a fault shows within seconds."""


@dataclass(frozen=True, slots=True)
class Goods:
    """One signed image whose only layer is `payload`."""

    image: Image
    payload: bytes

    @property
    def layer(self) -> Digest:
        return Digest.of(self.payload)


@dataclass(frozen=True, slots=True)
class Read:
    """What a device got.

    Arguments:
        complete: whether it may take the body for complete.
    """

    status: int
    body: bytes
    complete: bool
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        """The reason code of a refusal; "" when it was none."""
        return Answered(self.status, self.body, self.headers).reason


class Stricken:
    """What a test needs; made by `stricken`.

    Arguments:
        host: the registry, as an operator names it.
    """

    def __init__(
        self, facade: FacadeProcess, registry: Registry, host: str, certificates: Path
    ) -> None:
        self.facade = facade
        self.registry = registry
        self.host = host
        self.certificates = certificates
        self._count = 0

    # What is there.

    async def ship(self, *names: str, size: int = 1024 * 1024) -> list[Goods]:
        """Put images into the registry and sign them for the fleet dev; `size` bytes of payload."""
        goods = []
        for name in names:
            self._count += 1
            payload = shake_256(f"{name} {self._count}".encode()).digest(size)
            made = Goods(one_layer_image(payload), payload)
            self.registry.add_image(REPOSITORY, made.image, f"{name}-{self._count}")
            goods.append((f"{name}-{self._count}", made))
        places = [f"{self.host}/{REPOSITORY}:{tag}" for tag, _ in goods]
        await self.facade.must("artifact", "import", *places, "--fleet", "dev")
        return [made for _, made in goods]

    # The device.

    def blob(self, goods: Goods) -> str:
        """Where a device asks for the layer."""
        return self.path("blobs", goods.layer)

    def manifest(self, goods: Goods) -> str:
        """Where a device asks for the manifest."""
        return self.path("manifests", goods.image.index)

    def path(self, kind: str, digest: Digest) -> str:
        """Where a device asks for anything of the registry."""
        return f"/v2/{self.host.replace(':', '__')}/{REPOSITORY}/{kind}/{digest}"

    def context(self) -> ssl.SSLContext:
        """The device's TLS context."""
        context = ssl.create_default_context(cafile=self.certificates / "ca.crt")
        context.load_cert_chain(self.certificates / "client.cert", self.certificates / "client.key")
        return context

    @contextlib.asynccontextmanager
    async def opened(self, path: str, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer, its body not read yet, on a connection of its own."""
        timeout = aiohttp.ClientTimeout(total=60)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(
                f"https://{self.facade.device}{path}", ssl=self.context(), headers=headers
            ) as answer,
        ):
            yield answer

    async def get(self, path: str, **headers: str) -> Read:
        """One request of the device, read to its end, wherever that is."""
        async with self.opened(path, **headers) as answer:
            got = bytearray()
            complete = True
            try:
                async for chunk in answer.content.iter_any():
                    got += chunk
            except aiohttp.ClientError:
                complete = False
            return Read(answer.status, bytes(got), complete, dict(answer.headers))

    async def pull(self, goods: Goods) -> Read:
        """The layer."""
        return await self.get(self.blob(goods))

    async def pulls(self, goods: Goods) -> None:
        """The manifest and the layer, and both must be right."""
        top = await self.get(self.manifest(goods))
        assert (top.status, goods.image.index.matches(top.body)) == (200, True), top
        got = await self.pull(goods)
        assert (got.status, got.complete, got.reason) == (200, True, "")
        assert got.body == goods.payload

    async def heals(self, goods: Goods) -> None:
        """Return when a pull works: the fault is over, and nobody did anything else."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (got := await self.pull(goods)).complete or got.status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        await self.pulls(goods)

    # What the operator sees.

    async def ready(self) -> tuple[int, list[str]]:
        """The status of /readyz and its reasons, but for the plain http of the test's registry."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.facade.metrics}/readyz") as answer,
        ):
            reasons = (await answer.json())["reasons"]
            return answer.status, [reason for reason in reasons if "plain http" not in reason]

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels; 0 when there is none."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.facade.metrics}/metrics") as answer,
        ):
            total = 0.0
            for line in (await answer.text()).splitlines():
                sample, _, value = line.rpartition(" ")
                bare, _, rest = sample.partition("{")
                if bare == name and all(
                    f'{key}="{wanted}"' in rest for key, wanted in labels.items()
                ):
                    total += float(value)
            return total

    async def refusals(self, reason: str) -> float:
        """How many requests were refused for a reason."""
        return await self.metric("facade_refusals_total", reason=reason)

    async def shown(self) -> dict[str, Any]:
        """What `registry show` shows."""
        return await self._api(f"connections/{self.host}")

    async def last_error(self, words: str) -> None:
        """Return when `registry show` has an error with these words ("": when it has none)."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not _says((await self.shown()).get("last_error"), words):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def event(self, name: str, *, since: int = 0, words: str = "") -> dict[str, Any]:
        """The first such log line from number `since` on that holds the words, when it has come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for found in self.facade.events[since:]:
                if found["event"] == name and words in str(found):
                    return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"no {name} {words!r} in:\n{self.facade.log[-6000:]}")

    @property
    def mark(self) -> int:
        """How many log lines there are so far."""
        return len(self.facade.events)

    async def settled(self) -> None:
        """Return when no transfer is under way: what was pulled is in the cache."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self._api("cache"))["in_flight"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def _api(self, path: str) -> dict[str, Any]:
        key = (self.facade.state / "api-key").read_text().strip()
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.get(f"{self.facade.operator}/api/v1/{path}") as answer,
        ):
            body: dict[str, Any] = await answer.json()
            return body


def _says(error: str | None, words: str) -> bool:
    return error is None if words == "" else error is not None and words in error


@contextlib.asynccontextmanager
async def stricken(
    folder: Path,
    *,
    registry: Registry | None = None,
    add: Sequence[str | Path] = ("--anonymous", "--insecure"),
    env: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> AsyncIterator[Stricken]:
    """Start it all, with `QUICK` limits.

    Arguments:
        registry: not started yet; a plain one when None.
        add: options of `registry add`.
        env: further environment of `facade up`; prefix: a command that it is given to.
    """
    async with (
        registry or Registry() as upstream,
        facade_up(folder / "state", env={**QUICK, **(env or {})}, prefix=prefix) as facade,
    ):
        certificates = folder / "certificates"
        await facade.must("device", "issue", "dev/kiosk-1", "--out", certificates)
        host = str(upstream.host)
        await facade.must("registry", "add", host, *add)
        yield Stricken(facade, upstream, host, certificates)
