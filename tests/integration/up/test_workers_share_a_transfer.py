"""One cold blob, many clients, four serving processes: one transfer, or one refusal, also when its process
is killed.

WORKER_KILLS (at most five) sets how often the fetching worker is killed; once by default.
"""

import asyncio
import contextlib
import os
import re
import signal
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from facade.oci.digest import Digest
from tests.support.crew import flock_holder, peer_ports, until, workers_of
from tests.support.live import REPOSITORY, Live, live
from tests.support.misbehaviour import chain, slow_head, status, trickle

WORKERS = 4
CLIENTS = 200
PAYLOAD = 1024 * 1024
KILLS = min(5, int(os.environ.get("WORKER_KILLS", "1")))
PATIENCE_SECONDS = 100.0

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@dataclass
class Client:
    """One pull over a connection of its own, by hand: its port tells who serves it."""

    port: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def get(self, path: str) -> bytes:
        """The body; shorter than it should be when the connection was cut."""
        request = f"GET {path} HTTP/1.1\r\nHost: facade\r\nConnection: close\r\n\r\n"
        self.writer.write(request.encode())
        answer = bytearray()
        with contextlib.suppress(OSError):
            while data := await self.reader.read(256 * 1024):
                answer += data
        self.writer.close()
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        return body if head.startswith(b"HTTP/1.1 200 ") else head


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    env = {
        "FACADE_DEVICE__WORKERS": str(WORKERS),
        "FACADE_DEVICE__LIMITS__REQUESTS": str(2 * CLIENTS),
        "FACADE_DEVICE__LIMITS__STREAMS": str(2 * CLIENTS),
    }
    folder = tmp_path_factory.mktemp("share")
    async with live(folder, env=env, payload_bytes=PAYLOAD) as installation:
        await installation.add()
        await installation.import_all()
        yield installation


def largest(it: Live, tag: str) -> tuple[Digest, bytes, str]:
    """The image's largest blob, and its path on the device port."""
    blobs = it.images[tag].blobs
    digest = max(blobs, key=lambda each: len(blobs[each]))
    path = f"/v2/{it.registry.host.path_segment}/{REPOSITORY}/blobs/{digest}"
    return digest, blobs[digest], path


async def connect(it: Live, count: int) -> list[Client]:
    context = ssl.create_default_context(cafile=it.certificates / "ca.crt")
    context.load_cert_chain(it.certificates / "client.cert", it.certificates / "client.key")
    host, port = it.facade.device.rsplit(":", 1)
    clients = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        clients.append(Client(writer.get_extra_info("sockname")[1], reader, writer))
    return clients


async def test_two_hundred_clients_of_four_workers_cost_one_request(it: Live) -> None:
    digest, content, path = largest(it, "v6")
    clients = await connect(it, CLIENTS)
    served = [
        peer_ports(pid) & {each.port for each in clients} for pid in workers_of(it.facade.pid)
    ]
    assert len([ports for ports in served if ports]) == WORKERS
    it.registry.script("*/blobs/*", trickle(64 * 1024, 0.02))
    async with asyncio.timeout(PATIENCE_SECONDS):
        bodies = await asyncio.gather(*(each.get(path) for each in clients))
    assert set(map(len, bodies)) == {len(content)}
    assert set(bodies) == {content}
    assert it.registry.count(f"*/blobs/{digest}") == 1
    it.registry.behave()


async def test_what_a_registry_refuses_all_workers_refuse_after_one_request(it: Live) -> None:
    digest, _, path = largest(it, "v5")
    clients = await connect(it, 40)
    it.registry.script(f"*/blobs/{digest}", chain(status(404), slow_head(3)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        heads = await asyncio.gather(*(each.get(path) for each in clients))
    it.registry.behave()
    assert {head.split(b"\r\n")[0] for head in heads} == {b"HTTP/1.1 404 Not Found"}
    assert it.registry.count(f"*/blobs/{digest}") == 1
    # How each of them met it, whichever worker served it.
    found = await counted(it, "facade_cache_requests_total")
    assert (found["miss"], found["join"]) == (2, CLIENTS - 1 + len(clients) - 1)


async def counted(it: Live, name: str) -> dict[str, float]:
    """A metric's samples, by outcome."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{it.facade.metrics}/metrics") as answer,
    ):
        lines = [line for line in (await answer.text()).splitlines() if line.startswith(name)]
    found = [re.search(r'outcome="([a-z]+)".* (\S+)$', line) for line in lines]
    return {each[1]: float(each[2]) for each in found if each is not None}


async def test_the_fetching_worker_is_killed_and_no_other_ones_client_notices(it: Live) -> None:
    cache = it.facade.state / "cache"
    it.registry.script("*/blobs/*", trickle(32 * 1024, 0.1))  # 3 s
    for number in range(1, KILLS + 1):
        digest, content, path = largest(it, f"v{number}")
        await until(lambda: len(workers_of(it.facade.pid)) == WORKERS)
        pids = workers_of(it.facade.pid)
        clients = await connect(it, 40)
        it.registry.requests.clear()
        pulls = [asyncio.create_task(each.get(path)) for each in clients]
        pattern = f"ingest/sha256-{digest.hex}.*.partial"

        def fetching(pattern: str = pattern, pids: list[int] = pids) -> int | None:
            return flock_holder(cache, pattern, pids)

        await until(lambda: fetching() is not None)
        await asyncio.sleep(0.3 * number)
        victim = fetching()
        assert victim is not None
        lost = peer_ports(victim)
        assert 0 < len([each for each in clients if each.port not in lost]) < len(clients)
        os.kill(victim, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            bodies = await asyncio.gather(*pulls)
        for client, body in zip(clients, bodies, strict=True):
            assert body == content or client.port in lost
        assert it.registry.count(f"*/blobs/{digest}") == 2
        ranges = [seen.headers.get("range") for seen in it.registry.seen(f"*/blobs/{digest}")]
        assert ranges[0] is None
        assert ranges[1] is not None
    it.registry.behave()
