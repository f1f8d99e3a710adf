"""Descriptors whose size is a lie: a response may never end where the content does not."""

import asyncio
import json
from pathlib import Path

from facade.errors import Integrity
from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import Image, one_layer_image
from tests.support.misbehaviour import slow_head
from tests.support.registry import Registry

IMAGE = one_layer_image(b"layer" * 100)
((_, MANIFEST),) = IMAGE.manifests.values()


async def test_a_size_that_is_wrong_in_my_index_and_right_in_anothers(tmp_path: Path) -> None:
    """What was found fit to be served for one fleet is framed by another's false length: the rest
    would be read as the head of the next response on that connection.
    """
    child = {"mediaType": OCI_MANIFEST, "digest": str(IMAGE.index), "size": len(MANIFEST) - 10}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    liar = Image(Digest.of(index), {Digest.of(index): (OCI_INDEX, index)}, {})
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", IMAGE)
        await facade.sign(registry, "org/app", liar, fleet="other", name="liar")
        at = path(registry, "org/app", "manifests", IMAGE.index)
        async with facade.device("dev") as kiosk, kiosk.get(at) as answer:
            assert (answer.status, await answer.read()) == (200, MANIFEST)
        async with facade.device("other") as kiosk:
            for _ in range(2):
                async with kiosk.get(at) as answer:
                    assert answer.status == 502
                    assert b'"integrity"' in await answer.read()


async def test_a_false_size_does_not_fail_those_who_state_the_right_one(tmp_path: Path) -> None:
    """Both are looked for at once: the liar's search must not be the honest one's, too."""
    tuning = Tuning(keep_manifests=False)
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", IMAGE)
        place = (registry.host, registry.host.repository("org/app"), IMAGE.index)
        registry.script("*/manifests/*", slow_head(0.3))
        false, right = await asyncio.gather(
            facade.manifests.manifest(*place, len(MANIFEST) - 1),
            facade.manifests.manifest(*place, len(MANIFEST)),
            return_exceptions=True,
        )
    assert isinstance(false, Integrity)
    assert right == MANIFEST
