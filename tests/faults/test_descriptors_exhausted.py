"""File descriptors run out under a real `facade up`: it neither spins nor dies, and serves again."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import pytest_asyncio

from tests.support.live import REPOSITORY, Live, live

SOFT, HARD = 100, 200
ENV = {
    "FACADE_DEVICE__LIMITS__HANDSHAKE": "120",  # what hangs shall hang
    "FACADE_DEVICE__LIMITS__IDLE": "120",
}
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    prefix = ("prlimit", f"--nofile={SOFT}:{HARD}")
    folder = tmp_path_factory.mktemp("descriptors")
    async with live(folder, env=ENV, prefix=prefix) as running:
        await running.add()
        await running.import_all()
        assert (await running.pull("v1")).status == 200
        yield running


@contextlib.contextmanager
def hanging(address: tuple[str, int], count: int) -> Iterator[None]:
    """So many connections that say nothing."""
    with contextlib.ExitStack() as held:
        for _ in range(count):
            held.enter_context(socket.create_connection(address, timeout=5))
        yield


def place(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


async def metric(it: Live, name: str) -> float:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{it.facade.metrics}/metrics") as answer,
    ):
        for line in (await answer.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    return float("inf")  # it could not even look: that takes a descriptor


async def test_the_soft_limit_is_raised_to_the_hard_one(it: Live) -> None:
    assert await metric(it, "facade_process_max_fds") == HARD


async def test_devices_connections_never_take_the_last_descriptors(it: Live) -> None:
    """Two hundred that hang: beyond half of the descriptors they are closed, and work goes on."""
    context = ssl.create_default_context(cafile=it.certificates / "ca.crt")
    context.load_cert_chain(it.certificates / "client.cert", it.certificates / "client.key")
    image = it.images["v1"]
    blob = f"/v2/{it.registry.host.path_segment}/{REPOSITORY}/blobs/{next(iter(image.blobs))}"
    async with aiohttp.ClientSession(f"https://{it.facade.device}") as device:
        async with device.get("/v2/", ssl=context) as answer:  # one that is in already
            assert answer.status == 200
        with hanging(place(it.facade.device), 2 * HARD):
            # A burst is accepted before any of it is refused, so this may take a moment.
            async with asyncio.timeout(20):
                while await metric(it, "facade_process_open_fds") > HARD - 20:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            for _ in range(5):
                async with device.get(blob, ssl=context) as answer:
                    assert answer.status == 200
                    assert await answer.read() == next(iter(image.blobs.values()))
    assert (await it.pull("v2")).status == 200


async def test_without_any_descriptor_it_waits_and_serves_again(it: Live) -> None:
    """Taken through the metrics port, which has no bound of its own."""
    await asyncio.sleep(1.5)  # accepting pauses for a second after a burst
    with hanging(place(it.facade.metrics), 2 * HARD):
        await it.facade.logged("socket.accept() out of system resource")
        before = it.facade.cpu_seconds
        await asyncio.sleep(3)
        assert it.facade.cpu_seconds - before < 1.5
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                if (await it.pull("v3")).status == 200:
                    break
            await asyncio.sleep(0.2)
    assert await metric(it, "facade_process_max_fds") == HARD
