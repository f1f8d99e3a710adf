"""Made-up sessions of a device, the same with the lane and without: pipelined, split anywhere, ended early, of blobs
that are at hand, that are not, that may not be had, and that the registry fails to give; whatever it is, both give the
same bytes, and nothing is held afterwards.
"""

import asyncio
import contextlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from tests.support.both_ways import quiet
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import one_layer_image
from tests.support.lanes import SECONDS, Wire, connected
from tests.support.misbehaviour import Misbehaviour, corrupt, status, wrong_length
from tests.support.pki import client_context
from tests.support.registry import Registry

SESSIONS = 12
SIZES = (1, 100, 16_000, 70_000, 262_144, 600_000)
IMAGES = [one_layer_image(shake_256(b"%d" % size).digest(size)) for size in SIZES]
LAYERS = [Digest.of(shake_256(b"%d" % size).digest(size)) for size in SIZES]
UNKNOWN = Digest.of(b"signed by nobody")
PLAIN = ("", "X: y\r\n", "Accept: */*\r\nUser-Agent: z\r\n")
HEADERS = (
    *PLAIN,
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Range: bytes=3-9\r\n",
    f'If-None-Match: "{LAYERS[0]}"\r\n',
    f"X: {LAYERS[1].hex}\r\n",
    "Content-Length: 3\r\n",
)
TROUBLES = (status(404), wrong_length(5), corrupt())
"""None that has the registry left alone for a while: when that is over is a matter of the moment."""


@dataclass
class Port:
    facade: FacadeApp
    registry: Registry

    async def run(self, session: "Session") -> list[bytes]:
        """What the device gets."""
        facade = self.facade
        context = client_context(facade.server_ca, facade.ca.device())
        got: list[bytes] = []
        async with connected(("127.0.0.1", facade.port), context) as wire:
            for step in session.steps:
                await self._take(step, wire, got)
                if got and got[-1].startswith(b"END"):
                    break
        await quiet(facade)
        await facade.settled()
        self.registry.behave()
        assert (facade.pulls.requests.keys, facade.pulls.streams.keys) == (0, 0)
        await self._no_lane_is_open()
        # How long it is to wait is a matter of the moment.
        return [re.sub(rb"(?<=Retry-After: )\d+", b"*", each) for each in got]

    async def _no_lane_is_open(self) -> None:
        lanes = self.facade.app.lanes
        async with asyncio.timeout(SECONDS):
            while lanes is not None and lanes.open:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.002)

    async def _take(self, step: "Step", wire: Wire, got: list[bytes]) -> None:
        match step:
            case bytes():
                wire.writer.write(step)
                with contextlib.suppress(ConnectionError):  # what is read says that it has ended
                    await wire.writer.drain()
                await asyncio.sleep(0.003)
            case bool():
                got.append(await _answer(wire, body=step))
            case Digest():
                await self._forget(step)
            case (Digest() as digest, trouble):
                await self._forget(digest)
                self.registry.script(f"*/blobs/{digest}", trouble)
            case "disconnect":
                self.facade.control.disconnect(self.registry.host)
            case "revoke":
                self.facade.control.revoke("dev", "kiosk-7", self.facade.clock.time())
            case "restore":
                self.facade.control.restore()
                self.facade.connect(self.registry)

    async def _forget(self, digest: Digest) -> None:
        await self.facade.settled()
        if await self.facade.store.remove(digest) is not None:
            await self.facade.index.forget([digest])


Step = bytes | bool | Digest | tuple[Digest, Misbehaviour] | str
"""Send; read an answer, with a body or without; have a blob forgotten, and perhaps not given again; revoke,
disconnect, restore."""


async def _answer(wire: Wire, *, body: bool) -> bytes:
    try:
        return await wire.verbatim(body=body)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b"END"


@dataclass
class Session:
    steps: list[Step]

    @classmethod
    def made_up(cls, chance: random.Random, registry: Registry) -> "Session":
        steps: list[Step] = []
        waiting: list[bool] = []
        for _ in range(chance.randint(2, 7)):
            if chance.random() < 0.2:
                steps += waiting
                waiting.clear()
                steps.append(_between(chance))  # nothing is under way
            asked = _request(chance, registry)
            waiting.append(not asked.startswith(b"HEAD"))
            steps += _pieces(chance, asked)
            if b"close" in asked or b"HTTP/1.0" in asked:
                break  # what is sent to a closed connection may cost the answer before it
            if chance.random() < 0.85:
                steps += waiting
                waiting.clear()
            if ("revoke" in steps or "disconnect" in steps) and chance.random() < 0.5:
                steps += waiting
                waiting.clear()
                steps.append("restore")
        # Else it leaves before it was answered; what went wrong is remembered, so that must be seen both ways.
        if any(isinstance(step, tuple) for step in steps) or chance.random() < 0.8:
            steps += waiting
        return cls([*steps, "restore"])


def _between(chance: random.Random) -> Step:
    what: list[Step] = [chance.choice(LAYERS), "revoke", "disconnect"]
    what += [(chance.choice(LAYERS), chance.choice(TROUBLES))] * 2
    return chance.choice(what)


def _request(chance: random.Random, registry: Registry) -> bytes:
    number = chance.randrange(len(SIZES))
    layer = LAYERS[number]
    blob = path(registry, "org/app", "blobs", layer)
    if chance.random() < 0.8:
        return _plain(blob, chance.choice(PLAIN))
    target = chance.choice(
        [
            *([blob] * 6),
            path(registry, "org/app", "manifests", IMAGES[number].index),
            path(registry, "org/app", "blobs", UNKNOWN),
            path(registry, "org/other", "blobs", layer),
            f"{blob}?ns={registry.host}",
            f"{blob}?x={LAYERS[0].hex}",
            blob.replace("sha256:", "sha256%3A"),
            blob.replace(layer.hex, layer.hex.upper()),
            blob + "0",
            blob[:-1],
            blob + "#x",
            "/v2/",
        ]
    )
    method = chance.choice(["GET"] * 6 + ["HEAD", "POST"])
    version = chance.choice(["1.1"] * 9 + ["1.0"])
    head = f"{method} {target} HTTP/{version}\r\nHost: x\r\n{chance.choice(HEADERS)}\r\n"
    return head.encode() + (b"abc" if "Content-Length" in head else b"")


def _plain(target: str, header: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode()


def _pieces(chance: random.Random, asked: bytes) -> Iterator[bytes]:
    if chance.random() < 0.85:
        yield asked
        return
    at = chance.randrange(1, len(asked))
    yield asked[:at]
    yield asked[at:]


@pytest.mark.parametrize("seed", range(8))
async def test_made_up_sessions(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        registry = await stack.enter_async_context(Registry())
        ports = []
        for lanes in (True, False):
            facade = FacadeApp(tmp_path / str(lanes), tuning=Tuning(lanes=lanes))
            await stack.enter_async_context(facade)
            for number, image in enumerate(IMAGES):
                await facade.sign(registry, "org/app", image, name=f"app-{number}")
            ports.append(Port(facade, registry))
            words = [_plain(path(registry, "org/app", "blobs", LAYERS[0]), each) for each in PLAIN]
            await ports[-1].run(Session([step for each in words for step in (each, True)]))
        for _ in range(SESSIONS):
            session = Session.made_up(chance, registry)
            async with asyncio.timeout(SECONDS):
                short, long = [await port.run(session) for port in ports]
            assert short == long, session
        with_lanes, without = (port.facade.http_server.requests_count for port in ports)
        assert with_lanes < 0.8 * without
