"""skopeo, podman, containerd and Docker (direct, and as a mirror) when things go wrong.

They share one `facade up`, one device and their daemons; FACADE_DEVICE__WORKERS=4 tries them with several
serving processes. What each prints is what clients.md says of it: podman, skopeo and Docker print the
sentence of the refusal; containerd prints the status, since its first request is a HEAD; Docker's mirror
mode keeps the refusal to itself and goes on to Docker Hub.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import shake_256
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from facade.demo.image import Image, make_image
from tests.support.crew import workers_of
from tests.support.facade_process import Finished, facade_up
from tests.support.image import one_layer_image
from tests.support.misbehaviour import stall, truncate
from tests.support.pki import Authority, now
from tests.support.registry import Registry
from tests.support.stock_clients import StockClient, known_as, stock_clients
from tests.support.stricken import Goods, Stricken

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.clients,
    pytest.mark.slow,
]

NAME = "facade-v6.test"
REPOSITORY = "library/hello"
LINE = "hello from behind a facade under fire"
IMAGES = 3
SLOTS = 4
WAIT_SECONDS = 6


@dataclass
class Scene:
    """The facade, the clients, signed images that run, and a blob whose transfer stalls."""

    it: Stricken
    clients: dict[str, StockClient]
    images: list[Image]
    held: Goods

    async def pull_all(self, image: Image, *, mirror: bool = True) -> dict[str, Finished]:
        """All clients pull the image; at once, but for Docker in its two ways. By name."""
        dockers = ("docker", "mirror") if mirror else ("docker",)

        async def chain(*names: str) -> list[tuple[str, Finished]]:
            return [
                (name, await self.clients[name].pull(REPOSITORY, image.index)) for name in names
            ]

        done = await asyncio.gather(
            chain("skopeo"), chain("podman"), chain("containerd"), chain(*dockers)
        )
        return dict(pair for pairs in done for pair in pairs)

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """All request slots of the device are taken while this lasts."""
        it = self.it
        segment = it.registry.host.path_segment
        path = f"/v2/{segment}/{REPOSITORY}/blobs/{self.held.layer}"
        it.registry.script(f"*/blobs/{self.held.layer}", stall(100_000))
        async with contextlib.AsyncExitStack() as stack:

            async def hold() -> int:
                return (await stack.enter_async_context(it.opened(path))).status

            # Several serving processes have a part of the slots each, and the kernel says who gets a connection.
            several = len(workers_of(it.facade.pid)) > 1
            tries = [asyncio.create_task(hold()) for _ in range(10 * SLOTS if several else SLOTS)]
            assert sorted(await asyncio.gather(*tries))[:SLOTS] == [200] * SLOTS
            assert await it.metric("facade_streams_in_flight") == SLOTS
            yield
        it.registry.behave()

    @contextlib.contextmanager
    def presenting(self, certificate: bytes, key: bytes) -> Iterator[None]:
        """The clients present another certificate while this lasts."""
        files = [self.it.certificates / name for name in ("client.cert", "client.key")]
        before = [file.read_bytes() for file in files]
        try:
            for file, data in zip(files, (certificate, key), strict=True):
                file.write_bytes(data)
            yield
        finally:
            for file, data in zip(files, before, strict=True):
                file.write_bytes(data)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("fire")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(known_as(NAME))  # before dockerd starts: Go remembers it for a while
        registry = await stack.enter_async_context(Registry())
        host = str(registry.host)
        env = {
            "FACADE_DEVICE__LISTEN": "[::1]:0",
            "FACADE_DEVICE__DEFAULT_REGISTRY": host,
            "FACADE_DEVICE__LIMITS__REQUESTS": str(SLOTS),
            "FACADE_DEVICE__LIMITS__WAIT": str(WAIT_SECONDS),
        }
        facade = await stack.enter_async_context(
            facade_up(folder / "state", "--name", NAME, env=env)
        )
        images = [make_image(line=f"{LINE} {n}", payload_bytes=1024 * 1024) for n in range(IMAGES)]
        payload = shake_256(b"held").digest(8 * 1024 * 1024)
        held = Goods(one_layer_image(payload), payload)
        for number, image in enumerate([*images, held.image]):
            registry.add_image(REPOSITORY, image, f"v{number}")
        places = [f"{host}/{REPOSITORY}:v{number}" for number in range(IMAGES + 1)]
        await facade.must("registry", "add", host, "--anonymous", "--insecure")
        await facade.must("artifact", "import", *places, "--fleet", "dev")
        certificates = folder / "certificates"
        await facade.must("device", "issue", "dev/kiosk-1", "--out", certificates)
        it = Stricken(facade, registry, host, certificates)
        address = f"{NAME}:{facade.device.rpartition(':')[2]}"
        clients = await stack.enter_async_context(
            stock_clients(address, host, registry.host.path_segment, certificates)
        )
        yield Scene(it, clients, images, held)


async def test_an_upstream_that_cuts_in_the_middle_is_hidden_and_the_image_runs(
    scene: Scene,
) -> None:
    image, it, mark = scene.images[0], scene.it, scene.it.mark
    for digest, data in image.blobs.items():
        it.registry.script(f"*/blobs/{digest}", truncate(len(data) // 2), times=1)
    for name, done in (await scene.pull_all(image)).items():
        assert done.code == 0, f"{name}: {done}\n{it.facade.log[-4000:]}"
    await it.event("transfer_resumes", since=mark, words="broke off in the middle of a blob")
    for name, client in scene.clients.items():
        if name == "docker":  # the mirror, which pulled last, holds it now
            continue
        ran = await client.run(REPOSITORY, image.index)
        assert ran is None or ran.stdout.strip() == f"{LINE} 0", f"{name}: {ran}"


async def test_a_busy_facade_is_waited_for(scene: Scene) -> None:
    image, it = scene.images[1], scene.it
    async with scene.busy():
        pulling = asyncio.create_task(scene.pull_all(image))
        async with asyncio.timeout(30):
            while await it.metric("facade_requests_waiting") < len(scene.clients) - 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # docker and the mirror come one after the other
        assert not pulling.done()
    for name, done in (await pulling).items():
        assert done.code == 0, f"{name}: {done}\n{it.facade.log[-4000:]}"


BUSY = {
    "skopeo": "503 Service Unavailable",
    "podman": "503 Service Unavailable",
    "containerd": "503 Service Unavailable",
    "docker": "503 Service Unavailable",
}


async def test_a_facade_that_stays_busy_says_so(scene: Scene) -> None:
    before = await scene.it.refusals("overloaded")
    async with scene.busy():
        done = await scene.pull_all(scene.images[2], mirror=False)
    refused(done, BUSY)
    assert await scene.it.refusals("overloaded") >= before + len(done)
    for name, again in (await scene.pull_all(scene.images[2])).items():
        assert again.code == 0, f"{name}: {again}"


REVOKED = {
    "skopeo": "denied: This device's certificate was revoked by the operator.",
    "podman": "denied: This device's certificate was revoked by the operator.",
    "containerd": "403 Forbidden",
    "docker": "denied: This device's certificate was revoked by the operator.",
}


async def test_a_revoked_device_is_told_so(scene: Scene, tmp_path: Path) -> None:
    it = scene.it
    await it.facade.must("device", "issue", "dev/stolen", "--out", tmp_path)
    await it.facade.must("device", "revoke", "dev/stolen")
    before = await it.refusals("device-revoked")
    stolen = [(tmp_path / name).read_bytes() for name in ("client.cert", "client.key")]
    with scene.presenting(*stolen):
        done = await scene.pull_all(scene.images[0])  # which is cached
    refused(done, REVOKED)
    assert await it.refusals("device-revoked") >= before + len(done)


EXPIRED = dict.fromkeys(REVOKED, "remote error: tls: expired certificate")


async def test_an_expired_certificate_is_named(scene: Scene) -> None:
    it, day = scene.it, timedelta(days=1)
    leaf = _device_ca(it.facade.state).device(
        *("dev", "kiosk-1"),
        trust_domain="facade.local",
        not_before=now() - 9 * day,
        not_after=now() - day,
    )
    before = await it.metric("facade_handshake_failures_total", reason="expired")
    with scene.presenting(leaf.pem, leaf.key_pem):
        done = await scene.pull_all(scene.images[0])
    refused(done, EXPIRED)
    failures = await it.metric("facade_handshake_failures_total", reason="expired")
    assert failures >= before + len(done)


def refused(done: Mapping[str, Finished], words: Mapping[str, str]) -> None:
    """Each failed, and printed these words; the mirror prints what Docker Hub makes of it."""
    for name, finished in done.items():
        assert finished.code != 0, f"{name}: {finished}"
        printed = finished.stdout + finished.stderr
        assert words.get(name, "") in printed, f"{name}: {finished}"


def _device_ca(state: Path) -> Authority:
    """The development CA of `facade up`."""
    key = load_pem_private_key((state / "device-ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Authority(load_pem_x509_certificate((state / "device-ca.pem").read_bytes()), key)
