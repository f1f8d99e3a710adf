"""What outlives the process: content, possession, metadata. And referrers that were signed along."""

import json
from pathlib import Path

from facade.oci.digest import Digest
from facade.target import SignedTarget
from tests.support.facade_app import FacadeApp, path
from tests.support.image import add_referrer, one_layer_image, small_image
from tests.support.registry import Registry

PAYLOAD = b"layer" * 50_000
IMAGE = one_layer_image(PAYLOAD)
LAYER = Digest.of(PAYLOAD)
SIGNATURE = "application/vnd.example.signature"


async def test_after_a_restart_with_the_upstream_gone_everything_is_still_served(
    tmp_path: Path,
) -> None:
    async with Registry() as registry, FacadeApp(tmp_path) as first:
        await first.sign(registry, "org/app", IMAGE)
        async with first.device() as kiosk:
            for digest in IMAGE.blobs:
                async with kiosk.get(path(registry, "org/app", "blobs", digest)) as answer:
                    assert answer.status == 200
                    await answer.read()
        await first.settled()
    second = FacadeApp(tmp_path, tuf=first.tuf, ca=first.ca, server_ca=first.server_ca)
    second.control = first.control  # as the database would
    async with second, second.device() as kiosk:
        for kind, digests in (("manifests", IMAGE.manifests), ("blobs", IMAGE.blobs)):
            for digest in digests:
                async with kiosk.get(path(registry, "org/app", kind, digest)) as answer:
                    assert answer.status == 200
                    assert digest.matches(await answer.read())


async def test_with_the_metadata_source_gone_the_last_verified_view_serves(tmp_path: Path) -> None:
    async with Registry() as registry:
        async with FacadeApp(tmp_path) as first:
            await first.sign(registry, "org/app", IMAGE)
            async with first.device() as kiosk:
                url = path(registry, "org/app", "manifests", IMAGE.index)
                async with kiosk.get(url) as answer:
                    assert answer.status == 200
        second = FacadeApp(tmp_path, tuf=first.tuf, ca=first.ca, server_ca=first.server_ca)
        second.control = first.control
        second.source.failing["timestamp.json"] = OSError("unplugged")
        async with second, second.device() as kiosk, kiosk.get(url) as answer:
            assert answer.status == 200


async def test_referrers_list_what_was_signed_along_and_nothing_else(tmp_path: Path) -> None:
    image, signature = add_referrer(small_image(), SIGNATURE, b"signed")
    image, stray = add_referrer(image, SIGNATURE, b"somebody pushed this later")
    media_type, top = image.manifests[image.index]
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        facade.connect(registry)
        registry.add_image("org/app", image)
        place = registry.host.repository("org/app")
        for digest, (_, manifest) in image.manifests.items():
            if digest != stray:
                facade.control.keep(registry.host, place, manifest)
        await facade.publish(
            SignedTarget(
                *("dev", "app", "v1", image.index, len(top), registry.host, place, media_type),
                referrers=(signature,),
            )
        )
        async with facade.device() as kiosk:
            url = path(registry, "org/app", "referrers", image.index)
            async with kiosk.get(f"{url}?artifactType={SIGNATURE}") as answer:
                index = json.loads(await answer.read())
            assert [entry["digest"] for entry in index["manifests"]] == [str(signature)]
            assert index["manifests"][0]["artifactType"] == SIGNATURE
            async with kiosk.get(f"{url}?artifactType=other") as answer:
                assert json.loads(await answer.read())["manifests"] == []
            for digest, status in ((signature, 200), (stray, 403)):
                async with kiosk.get(path(registry, "org/app", "manifests", digest)) as answer:
                    assert answer.status == status
