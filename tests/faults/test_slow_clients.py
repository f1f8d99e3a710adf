"""Devices that are slow on purpose, one of each kind and then 200 at once, against a real `facade up`.

Each kind holds what it can for as long as the limits let it, and is then cut. Meanwhile an honest device is served
within a bounded time, and the serving process's memory stays within what it may take per stream. The limits are
settings, shortened so that they show within seconds.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.crew import pss_mib, workers_of
from tests.support.pki import Authority, client_context
from tests.support.stricken import Goods, Stricken, stricken

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.slow,
    pytest.mark.timeout(120),
]

MANY = 200
DEVICES = 8
"""With certificates of their own: none takes more streams or connections than one device may."""
LARGE_BYTES = 64 * 1024 * 1024
SMALL_BYTES = 1024 * 1024
LIMIT_SECONDS = 4.0
CUT_WITHIN_SECONDS = 40.0
"""Generous: what is looked for is that they are cut at all, and the machine is shared."""
HONEST_WITHIN_SECONDS = 15.0
"""For a manifest and a MiB, each on a connection of its own."""
MIB_PER_STREAM = 1.0
MIB_PER_CONNECTION = 0.25
ENV = {
    "FACADE_DEVICE__LIMITS__HANDSHAKE": str(LIMIT_SECONDS),
    "FACADE_DEVICE__LIMITS__IDLE": str(LIMIT_SECONDS),
    "FACADE_DEVICE__LIMITS__STALL": str(LIMIT_SECONDS),
    "FACADE_DEVICE__WORKERS": "1",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """The facade, what is in its cache, and the slow devices' certificates.

    Arguments:
        large: where the 64 MiB are asked for.
    """

    it: Stricken
    small: Goods
    large: str
    contexts: Sequence[ssl.SSLContext]

    @property
    def worker(self) -> int:
        """The PID of the serving process."""
        [pid] = workers_of(self.it.facade.pid)
        return pid

    async def connect(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of slow device `number`, whose kernel takes next to nothing unread."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        host, port = self.it.facade.device.rsplit(":", 1)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        return await asyncio.open_connection(
            sock=raw,
            ssl=self.contexts[number % DEVICES],
            server_hostname="localhost",
            limit=1024,
        )


@dataclass(slots=True)
class Hold:
    """How many of the slow devices hold what they can, and when the facade has let go of the last."""

    expected: int
    count: int = 0
    all: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def one_more(self) -> None:
        """One holds."""
        self.count += 1
        if self.count == self.expected:
            self.all.set()

    async def watch(self, it: Stricken) -> None:
        """Tell when no stream is left, as the facade counts them."""
        async with asyncio.timeout(CUT_WITHIN_SECONDS):
            while await it.metric("facade_streams_in_flight"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        self.over.set()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("slow")
    ca = Authority.root("Slow CA")
    file = ca.write(folder, "slow-ca.pem")
    cas = [{"file": str(folder / "state" / "device-ca.pem")}, {"file": str(file)}]
    async with stricken(folder, env={**ENV, "FACADE_DEVICE__CA": json.dumps(cas)}) as it:
        [small] = await it.ship("small", size=SMALL_BYTES)
        [large] = await it.ship("large", size=LARGE_BYTES)
        for goods in (small, large):
            await it.pulls(goods)
        await it.settled()
        contexts = [slow_context(ca, it.certificates / "ca.crt", n) for n in range(DEVICES)]
        yield Scene(it, small, it.blob(large), contexts)


def slow_context(ca: Authority, server_ca: Path, number: int) -> ssl.SSLContext:
    """What slow device `number` connects with."""
    leaf = ca.device("dev", f"slow-{number}", trust_domain="facade.local")
    context = client_context(ca, leaf)
    context.load_verify_locations(server_ca)
    return context


async def says_nothing(scene: Scene, number: int, hold: Hold) -> bool:
    """Completes its handshake, and that was all."""
    reader, writer = await scene.connect(number)
    hold.one_more()
    return await ended(reader, writer) == 0


async def never_shakes_hands(scene: Scene, number: int, hold: Hold) -> bool:
    """Connects, and does not even greet."""
    host, port = scene.it.facade.device.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    hold.one_more()
    return await ended(reader, writer) == 0


async def trickles_its_head(scene: Scene, number: int, hold: Hold) -> bool:
    """Sends a request of which each byte comes a moment after the other, and never the last."""
    reader, writer = await scene.connect(number)
    writer.write(b"GET /v2/ HTTP/1.1\r\nHost: facade\r\nX-Slow: ")
    hold.one_more()
    reading = asyncio.create_task(ended(reader, writer))
    while not reading.done():
        with contextlib.suppress(OSError):
            writer.write(b"x")
        await asyncio.wait((reading,), timeout=0.2)
    return await reading == 0


async def does_not_read(scene: Scene, number: int, hold: Hold) -> bool:
    """Asks for 64 MiB, reads how they begin, and no more."""
    reader, writer = await scene.connect(number)
    writer.write(f"GET {scene.large} HTTP/1.1\r\nHost: facade\r\n\r\n".encode())
    assert await reader.readexactly(12) == b"HTTP/1.1 200"
    hold.one_more()
    await hold.over.wait()
    return await ended(reader, writer) < LARGE_BYTES


KINDS = {
    "connects and does not greet": (never_shakes_hands, MIB_PER_CONNECTION),
    "shakes hands and says nothing": (says_nothing, MIB_PER_CONNECTION),
    "trickles its request's head": (trickles_its_head, MIB_PER_CONNECTION),
    "does not read its 64 MiB": (does_not_read, MIB_PER_STREAM),
}


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """How many bytes came until the connection's end."""
    count = 0
    try:
        async with asyncio.timeout(CUT_WITHIN_SECONDS):
            while data := await reader.read(64 * 1024):
                count += len(data)
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.transport.abort()
    return count


@pytest.mark.parametrize("count", [1, MANY])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_slow_device_is_cut_and_holds_up_nobody(
    scene: Scene, kind: str, count: int
) -> None:
    slow, mib = KINDS[kind]
    at_rest, hold = pss_mib(scene.worker), Hold(count)
    begun = time.monotonic()
    tasks = [asyncio.create_task(slow(scene, number, hold)) for number in range(count)]
    async with asyncio.timeout(CUT_WITHIN_SECONDS):
        await hold.all.wait()
    held = time.monotonic()
    async with asyncio.timeout(HONEST_WITHIN_SECONDS):
        await scene.it.pulls(scene.small)
    served = time.monotonic()
    highest = pss_mib(scene.worker)
    await hold.watch(scene.it)
    assert all(await asyncio.gather(*tasks))
    over = time.monotonic()
    print(
        f"{count}: {kind}: all held after {held - begun:.1f} s, honest device served in "
        f"{served - held:.2f} s, all cut {over - held:.1f} s later; {at_rest:.0f} → {highest:.0f} MiB"
    )
    assert over - begun >= LIMIT_SECONDS / 2, "cut by what is tried here, not by something else"
    assert highest - at_rest < 16 + count * mib
    assert (await scene.it.ready())[0] == 200
    await scene.it.pulls(scene.small)
