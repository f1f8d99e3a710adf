"""Reaching for content that is cached, but not the asker's (trust.md, "Possession")."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.support.facade_app import FacadeApp, path
from tests.support.image import Image, one_layer_image
from tests.support.registry import Registry

SECRET = shake_256(b"the other customer's layer").digest(200_000)
LAYER = Digest.of(SECRET)
PRIVATE = one_layer_image(SECRET)


@dataclass
class Bench:
    facade: FacadeApp
    victim: Registry
    mine: Registry

    async def get(self, registry: Registry, kind: str, digest: Digest, fleet: str) -> int:
        async with (
            self.facade.device(fleet) as device,
            device.get(path(registry, "org/app", kind, digest)) as answer,
        ):
            if answer.status == 200:
                assert digest.matches(await answer.read())
            return answer.status


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path) as facade, Registry() as victim, Registry() as mine:
        found = Bench(facade, victim, mine)
        await facade.sign(victim, "org/app", PRIVATE, fleet="other")
        assert await found.get(victim, "blobs", LAYER, "other") == 200
        await facade.settled()
        yield found


async def test_a_private_layer_of_another_registry_named_in_my_manifest(bench: Bench) -> None:
    """I own a repository and get an image signed whose manifest names the victim's layer."""
    await bench.facade.sign(bench.mine, "org/app", PRIVATE, hold=False)
    bench.mine.add_blob("org/app", b"{}")
    asked = bench.victim.count(method=None)
    assert await bench.get(bench.mine, "blobs", LAYER, "dev") == 404
    assert bench.victim.count(method=None) == asked


async def test_a_private_manifest_of_another_registry_named_in_my_index(bench: Bench) -> None:
    """The same one level up: an index that names the victim's manifest as its child."""
    ((_, data),) = PRIVATE.manifests.values()
    child = {"mediaType": OCI_MANIFEST, "digest": str(PRIVATE.index), "size": len(data)}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    top = Image(Digest.of(index), {Digest.of(index): (OCI_INDEX, index)}, {})
    await bench.facade.sign(bench.mine, "org/app", top)
    asked = bench.victim.count(method=None)
    assert await bench.get(bench.mine, "manifests", top.index, "dev") == 200
    assert await bench.get(bench.mine, "manifests", PRIVATE.index, "dev") == 404
    assert await bench.get(bench.mine, "blobs", LAYER, "dev") != 200
    assert bench.victim.count(method=None) == asked


async def test_a_repository_that_has_it_too_proves_so_by_its_own_bytes(bench: Bench) -> None:
    await bench.facade.sign(bench.mine, "org/app", PRIVATE)
    assert await bench.get(bench.mine, "blobs", LAYER, "dev") == 200
    assert bench.mine.count("*/blobs/*") == 1


async def test_a_device_of_another_fleet_cannot_ride_on_a_running_transfer(bench: Bench) -> None:
    """Single flight joins only who may have it: the decision comes first."""
    big = one_layer_image(shake_256(b"running").digest(2_000_000))
    layer = max(big.blobs, key=lambda digest: len(big.blobs[digest]))
    await bench.facade.sign(bench.victim, "org/app", big, fleet="other", name="big")
    mine, theirs = await asyncio.gather(
        bench.get(bench.victim, "blobs", layer, "dev"),
        bench.get(bench.victim, "blobs", layer, "other"),
    )
    assert (mine, theirs) == (403, 200)
