"""What an operator does, seen from the device: imported with its signatures, warmed, withdrawn.

Everything through `facade up`, its command line and its two ports.
"""

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from facade.demo.image import Image
from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from tests.support.docker_registry import DockerRegistry, docker_registry
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import add_referrer, make_image, one_layer_image, push, small_image
from tests.support.manifests import descriptor, image_index, image_manifest
from tests.support.misbehaviour import trickle
from tests.support.people import connect, device, operator, path_of
from tests.support.registry import Registry

REPOSITORY = "org/app"
SIGNATURE, SBOM = "application/vnd.example.signature", "application/spdx+json"
ANNOTATIONS = {"org.opencontainers.image.created": "2026-01-31T12:00:00Z"}
CUT_WITHIN_SECONDS = 6.0


def _signed_image() -> tuple[Image, Digest, Digest]:
    """An image with a signature and an SBOM that refer to its index."""
    plain = small_image("signed")
    document = json.loads(plain.manifests[plain.index][1])
    index = json.dumps({**document, "annotations": ANNOTATIONS}).encode()
    children = {d: held for d, held in plain.manifests.items() if d != plain.index}
    manifests = {Digest.of(index): (OCI_INDEX, index), **children}
    annotated = Image(Digest.of(index), manifests, plain.blobs)
    image, signature = add_referrer(annotated, SIGNATURE, b"signature")
    image, sbom = add_referrer(image, SBOM, b"what is in it")
    return image, signature, sbom


@pytest.mark.parametrize("api", [True, False], ids=["referrers API", "tag fallback"])
async def test_signatures_and_sboms_reach_the_device_with_the_image(
    tmp_path: Path, *, api: bool
) -> None:
    image, signature, sbom = _signed_image()
    async with Registry(referrers_api=api) as registry, facade_up(tmp_path / "state") as facade:
        registry.add_image(REPOSITORY, image, "v1")
        _, later = add_referrer(image, SIGNATURE, b"a later signature")
        if not api:
            entries = [
                {**descriptor(image.manifests[digest][1], OCI_MANIFEST), "artifactType": kind}
                for digest, kind in ((signature, SIGNATURE), (sbom, SBOM))
            ]
            tag = str(image.index).replace(":", "-")
            registry.add_manifest(REPOSITORY, image_index(entries), OCI_INDEX, tag)
        host = await connect(facade, registry)
        done = await facade.must(
            *("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev"),
            *("--with-referrers", "--warm", "--json"),
        )
        [result] = done.json["results"]
        assert (result["status"], result["warmed"]) == ("imported", True)
        shown = (await facade.must("artifact", "show", "dev/app/v1", "--json")).json
        assert set(shown["referrers"]) == {str(signature), str(sbom)}
        checked = (await facade.must("artifact", "verify", "dev/app/v1", "--json")).json
        assert checked["ok"]
        assert checked["cached"] == checked["blobs"] == len(image.blobs)

        # What was not signed along does not exist for devices, whatever the registry says now.
        registry.add_image(REPOSITORY, add_referrer(image, SIGNATURE, b"a later signature")[0])
        await registry.stop()  # all is warm: the registry is not needed any more
        async with device(facade, tmp_path / "kiosk") as kiosk:
            await _pulls_all_of(kiosk, registry, image)
            path = path_of(registry, REPOSITORY, "referrers", image.index)
            async with kiosk.get(path) as answer:
                assert answer.content_type == OCI_INDEX
                listed = (await answer.json())["manifests"]
            assert {(each["digest"], each["artifactType"]) for each in listed} == {
                (str(signature), SIGNATURE),
                (str(sbom), SBOM),
            }
            async with kiosk.get(path, params={"artifactType": SBOM}) as answer:
                assert [each["digest"] for each in (await answer.json())["manifests"]] == [
                    str(sbom)
                ]
            async with kiosk.get(path_of(registry, REPOSITORY, "manifests", later)) as answer:
                assert answer.status == 403


async def test_a_real_registry_is_browsed_imported_with_its_signatures_and_pulled(
    tmp_path: Path,
) -> None:
    """docker-registry 2.8, which has no referrers API: signatures are found by tag."""
    image, signature, sbom = _signed_image()
    entries = [descriptor(image.manifests[digest][1], OCI_MANIFEST) for digest in (signature, sbom)]
    by_tag = image_index(entries)
    tag = str(image.index).replace(":", "-")
    async with (
        docker_registry(tmp_path / "registry") as registry,
        facade_up(tmp_path / "state") as facade,
    ):
        await push(registry.url, REPOSITORY, image, "v1", "latest")
        listing = Image(Digest.of(by_tag), {Digest.of(by_tag): (OCI_INDEX, by_tag)}, {})
        await push(registry.url, REPOSITORY, listing, tag)
        host = str(registry.host)
        await facade.must("registry", "add", host, "--anonymous", "--insecure")
        tags = await facade.must("registry", "tags", f"{host}/{REPOSITORY}")
        assert tags.stdout.split() == ["latest", "v1"]
        assert "Hidden: 1 of tools' own" in tags.stderr
        asked = {"repository": REPOSITORY, "reference": "v1"}
        path = f"/api/v1/connections/{host}/manifest"
        async with operator(facade) as api, api.get(path, params=asked) as answer:
            seen = await answer.json()
        assert (seen["digest"], seen["media_type"]) == (str(image.index), OCI_INDEX)
        assert seen["size"] == len(image.manifests[image.index][1])
        assert [each["platform"] for each in seen["platforms"]] == ["linux/amd64", "linux/arm64"]
        own = {signature, sbom, image.index}
        sizes = {str(digest): len(data) for digest, (_, data) in image.manifests.items()}
        for each in seen["platforms"]:
            assert each["size"] == sizes[each["digest"]]
            assert each["total_bytes"] > 0
        assert len(image.manifests) - len(own) == len(seen["platforms"])
        assert seen["total_bytes"] >= max(each["total_bytes"] for each in seen["platforms"])
        assert (seen["annotations"], seen["created"]) == (ANNOTATIONS, "2026-01-31T12:00:00Z")

        done = await facade.must(
            *("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev"),
            *("--with-referrers", "--json"),
        )
        assert done.json["results"][0]["status"] == "imported"
        async with device(facade, tmp_path / "kiosk") as kiosk:
            await _pulls_all_of(kiosk, registry, image)
            async with kiosk.get(path_of(registry, REPOSITORY, "referrers", image.index)) as got:
                listed = (await got.json())["manifests"]
            assert {each["digest"] for each in listed} == {str(signature), str(sbom)}
        async with asyncio.timeout(5):
            # Pulls are reported in batches; a process is asked, so there is no event to wait for.
            while (await _shown(facade, "dev/app/v1"))["pulled"] != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def _shown(facade: FacadeProcess, target: str) -> dict[str, Any]:
    shown: dict[str, Any] = (await facade.must("artifact", "show", target, "--json")).json
    return shown


async def _pulls_all_of(
    kiosk: aiohttp.ClientSession, registry: Registry | DockerRegistry, image: Image
) -> None:
    for digest, (_, data) in image.manifests.items():
        async with kiosk.get(path_of(registry, REPOSITORY, "manifests", digest)) as answer:
            assert (answer.status, await answer.read()) == (200, data)
    for digest, data in image.blobs.items():
        async with kiosk.get(path_of(registry, REPOSITORY, "blobs", digest)) as answer:
            assert (answer.status, await answer.read()) == (200, data)


async def test_a_retag_changes_nothing_that_is_signed_and_a_digest_can_be_imported(
    tmp_path: Path,
) -> None:
    first, second = one_layer_image(b"first"), one_layer_image(b"second")
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        registry.add_image(REPOSITORY, first, "v1")
        registry.add_image(REPOSITORY, second)
        host = await connect(facade, registry)
        order = ("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev", "--json")
        assert (await facade.must(*order)).json["results"][0]["status"] == "imported"
        registry.tag(REPOSITORY, "v1", second.index)
        shown = (await facade.must("artifact", "show", "dev/app/v1", "--json")).json
        assert shown["digest"] == str(first.index)
        async with device(facade, tmp_path / "kiosk") as kiosk:
            new = path_of(registry, REPOSITORY, "manifests", second.index)
            async with kiosk.get(new) as answer:
                assert answer.status == 403, "a retag is no import"
            [moved] = (await facade.must(*order)).json["results"]
            assert (moved["status"], moved["digest"]) == ("moved", str(second.index))
            assert moved["target"] == f"dev/app/v1-{second.index.hex[:12]}"
            async with kiosk.get(new) as answer:
                assert answer.status == 200
        shown = (await facade.must("artifact", "show", "dev/app/v1", "--json")).json
        assert shown["digest"] == str(first.index)

        by_digest = await facade.must(
            *("artifact", "import", f"{host}/{REPOSITORY}@{second.index}", "--fleet", "dev"),
            *("--name", "pinned", "--version", "v2", "--json"),
        )
        [result] = by_digest.json["results"]
        assert (result["target"], result["digest"]) == ("dev/pinned/v2", str(second.index))


async def test_withdrawing_cuts_open_streams_refuses_at_once_and_is_audited(
    tmp_path: Path,
) -> None:
    image = make_image(payload_bytes=1024 * 1024)
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        registry.add_image(REPOSITORY, image, "v1")
        host = await connect(facade, registry)
        await facade.must("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev")
        registry.script("*/blobs/*", trickle(16 * 1024, 0.2), method="GET")
        async with device(facade, tmp_path / "kiosk") as kiosk:
            blob = path_of(registry, REPOSITORY, "blobs", layer)
            async with kiosk.get(blob) as running:
                assert running.status == 200
                await running.content.readany()
                before = time.monotonic()
                withdrawn = await facade.must("artifact", "withdraw", "dev/app/v1", "--json")
                assert withdrawn.json == {"target": "dev/app/v1", "withdrawn": True}
                for role, digest in (("manifests", image.index), ("blobs", layer)):
                    async with kiosk.get(path_of(registry, REPOSITORY, role, digest)) as answer:
                        assert answer.status == 403, "in use when the command returned"
                        error = (await answer.json())["errors"][0]
                        assert error["detail"]["reason"] == "not-signed"
                with pytest.raises(aiohttp.ClientError):
                    async with asyncio.timeout(CUT_WITHIN_SECONDS):
                        await running.read()
                assert time.monotonic() - before < CUT_WITHIN_SECONDS
        rows = (await facade.must("audit", "--action", "artifact.withdraw", "--json")).json
        assert [(row["subject"], row["outcome"]) for row in rows["items"]] == [("dev/app/v1", "ok")]
        again = await facade.cli("artifact", "withdraw", "dev/app/v1")
        assert (again.code, again.stderr.count("\n")) == (1, 1)
        rows = (await facade.must("audit", "--action", "artifact.withdraw", "--json")).json
        assert [row["outcome"] for row in rows["items"]] == ["failed", "ok"]


def _many_platforms(count: int) -> tuple[Image, Digest, Digest]:
    """An index of `count` images; its last image and that image's layer."""
    manifests: dict[Digest, tuple[str, bytes]] = {}
    blobs: dict[Digest, bytes] = {}
    children = []
    for number in range(count):
        platform = {"os": "linux", "architecture": f"arch{number}"}
        config, layer = b'{"os":"linux","architecture":"arch%d"}' % number, b"layer %d" % number
        data = image_manifest(config, [layer])
        manifests[Digest.of(data)] = (OCI_MANIFEST, data)
        blobs |= {Digest.of(config): config, Digest.of(layer): layer}
        children.append({**descriptor(data, OCI_MANIFEST), "platform": platform})
    index = image_index(children)
    image = Image(Digest.of(index), {Digest.of(index): (OCI_INDEX, index), **manifests}, blobs)
    return image, Digest.of(data), Digest.of(layer)


async def test_an_index_of_200_platforms_is_pulled_right_after_a_restart(tmp_path: Path) -> None:
    """More than a cold walk may fetch upstream per request: kept manifests are not fetched."""
    image, last, layer = _many_platforms(200)
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        registry.add_image(REPOSITORY, image, "v1")
        host = await connect(facade, registry)
        await facade.must("artifact", "import", f"{host}/{REPOSITORY}:v1", "--fleet", "dev")
        assert await facade.stop() == 0
        shutil.rmtree(facade.state / "cache")  # nothing is left on the serving side
        await facade.start()
        asked = registry.count("*/manifests/*", None)
        async with device(facade, tmp_path / "kiosk") as kiosk:
            # The layer first: everything above it has to be walked for this one answer.
            async with kiosk.get(path_of(registry, REPOSITORY, "blobs", layer)) as answer:
                assert (answer.status, await answer.read()) == (200, image.blobs[layer])
            async with kiosk.get(path_of(registry, REPOSITORY, "manifests", last)) as answer:
                assert answer.status == 200
            nothing = Digest.of(b"signed for nobody")
            async with kiosk.get(path_of(registry, REPOSITORY, "blobs", nothing)) as answer:
                assert answer.status == 403
        assert registry.count("*/manifests/*", None) == asked, "no manifest was asked for upstream"


async def test_two_operators_import_at_once(tmp_path: Path) -> None:
    """Three command lines, overlapping tags: nothing is lost, nothing is signed twice."""
    tags = [f"v{number}" for number in range(12)]
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        for number, tag in enumerate(tags):
            registry.add_image(REPOSITORY, one_layer_image(b"layer %d" % number), tag)
        host = await connect(facade, registry)
        outcomes = await asyncio.gather(
            _import(facade, host, tags[:8]),
            _import(facade, host, tags[4:]),
            _import(facade, host, tags),
        )
        statuses = [status for outcome in outcomes for status in outcome.values()]
        assert set(statuses) <= {"imported", "unchanged"}
        assert len(statuses) == 8 + 8 + 12
        listed = (await facade.must("artifact", "list", "--fleet", "dev", "--json")).json
        assert {item["version"] for item in listed["items"]} == set(tags)
        assert listed["total"] == len(tags)
        async with operator(facade) as api, api.get("/api/v1/audit?action=artifact.import") as got:
            assert [row["outcome"] for row in (await got.json())["items"]] == ["ok"] * 3


async def _import(facade: FacadeProcess, host: str, tags: list[str]) -> dict[str, str]:
    names = [f"{host}/{REPOSITORY}:{tag}" for tag in tags]
    done = await facade.must("artifact", "import", *names, "--fleet", "dev", "--json")
    return {result["tag"]: result["status"] for result in done.json["results"]}
