"""Asking while it is allowed, and waiting until it is no more: the registry takes its time.

A decision that was right when the request came must not send bytes seconds or minutes later.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path

import aiohttp
import pytest

from facade.target import SignedTarget
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import one_layer_image, with_two_sizes
from tests.support.misbehaviour import held
from tests.support.registry import Registry

IMAGE = one_layer_image(b"a small layer " * 100)
LARGE = one_layer_image(shake_256(b"large").digest(48 * 1024 * 1024))
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
DIGESTS = {"manifests": IMAGE.index, "blobs": LAYER}


async def _read_slowly(answer: aiohttp.ClientResponse) -> None:
    async for _ in answer.content.iter_any():
        await asyncio.sleep(0.1)


@dataclass
class Bench:
    facade: FacadeApp
    registry: Registry
    target: SignedTarget

    async def slowly(self, kind: str, meanwhile: str) -> tuple[int, bytes]:
        """Ask; have something happen while the registry thinks; what the device got."""
        at = path(self.registry, "org/app", kind, DIGESTS[kind])
        if kind == "blobs":  # the walk is done: only the blob itself is waited for
            assert await self._get(path(self.registry, "org/app", "manifests", IMAGE.index))
        thought = asyncio.Event()
        self.registry.script(f"/v2/org/app/{kind}/*", held(thought))
        asking = asyncio.create_task(self._get(at))
        async with asyncio.timeout(60):
            while not self.registry.count(f"/v2/org/app/{kind}/*", None):  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.01)
        if meanwhile == "revoke":
            self.facade.control.revoke("dev", "kiosk-7", time.time())
        elif meanwhile == "withdraw":
            await self.facade.withdraw(self.target)
            await self.facade.refresher.refresh()
        else:
            self.facade.control.disconnect(self.registry.host)
        thought.set()
        return await asking

    async def _get(self, url: str) -> tuple[int, bytes]:
        async with self.facade.device() as kiosk:
            try:
                async with kiosk.get(url) as answer:
                    return answer.status, await answer.read()
            except aiohttp.ClientError:
                return 0, b""  # cut


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    tuning = Tuning(keep_manifests=False)
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        yield Bench(facade, registry, await facade.sign(registry, "org/app", IMAGE))


@pytest.mark.parametrize("kind", ["manifests", "blobs"])
async def test_a_device_revoked_while_the_registry_thinks_gets_no_byte(
    bench: Bench, kind: str
) -> None:
    status, body = await bench.slowly(kind, "revoke")
    assert status == 0 or (status == 403 and b"device-revoked" in body)


async def test_a_manifest_withdrawn_while_the_registry_thinks(bench: Bench) -> None:
    status, body = await bench.slowly("manifests", "withdraw")
    assert status == 403
    assert b"not-signed" in body


async def test_a_connection_removed_while_the_registry_thinks(bench: Bench) -> None:
    status, body = await bench.slowly("manifests", "disconnect")
    assert status == 403
    assert b"host-not-connected" in body


async def test_a_blob_withdrawn_while_the_registry_is_asked_for_its_size(tmp_path: Path) -> None:
    odd = with_two_sizes(IMAGE)
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        bench = Bench(facade, registry, await facade.sign(registry, "org/app", odd))
        for digest in odd.manifests:  # the walk knows both sizes before the blob is asked for
            status, _ = await bench._get(path(registry, "org/app", "manifests", digest))
            assert status == 200
        status, body = await bench.slowly("blobs", "withdraw")
    assert status == 0 or (status == 403 and b"not-signed" in body)


async def test_a_removed_connection_ends_a_stream_of_which_nothing_else_can_be_decided(
    tmp_path: Path,
) -> None:
    """The metadata expires, so that nobody can tell whether the content is signed still."""
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", LARGE)
        layer = max(LARGE.blobs, key=lambda digest: len(LARGE.blobs[digest]))
        at = path(registry, "org/app", "blobs", layer)
        async with facade.device() as kiosk:
            async with kiosk.get(at) as answer:
                await answer.read()  # it is in the cache now
            async with kiosk.get(at) as answer:
                await answer.content.readexactly(10_000)
                facade.clock.offset = 20 * 86400.0
                facade.control.disconnect(registry.host)
                async with asyncio.timeout(10):
                    with pytest.raises(aiohttp.ClientError):
                        await _read_slowly(answer)
