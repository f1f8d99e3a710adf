"""Using a registry on after its connection was removed: by a transfer that is under way."""

import asyncio
from hashlib import shake_256
from pathlib import Path

import aiohttp
import pytest

from facade.oci.digest import Digest
from tests.support.facade_app import FacadeApp, path
from tests.support.image import one_layer_image
from tests.support.misbehaviour import trickle
from tests.support.registry import Registry

PAYLOAD = shake_256(b"a layer that takes a while").digest(4 * 1024 * 1024)
LAYER = Digest.of(PAYLOAD)
IMAGE = one_layer_image(PAYLOAD)


@pytest.mark.parametrize("again", [False, True], ids=["removed", "removed and added again"])
async def test_a_transfer_ends_with_its_connection(tmp_path: Path, *, again: bool) -> None:
    """Also when nobody waits for it but the cache, and when the host has another connection now."""
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", IMAGE)
        registry.script("*/blobs/*", trickle(64 * 1024, 0.1))  # six seconds and a half
        at = path(registry, "org/app", "blobs", LAYER)
        async with facade.device() as kiosk, kiosk.get(at) as answer:
            await answer.content.readexactly(100_000)
            facade.control.disconnect(registry.host)
            if again:
                facade.connect(registry)
            async with asyncio.timeout(3):
                with pytest.raises(aiohttp.ClientError):
                    await answer.read()
                await facade.settled()
        assert await facade.store.open(LAYER) is None
