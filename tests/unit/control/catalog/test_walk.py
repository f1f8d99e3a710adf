"""Walking an image: all of it is checked, and what could not be served is refused in words."""

import asyncio
import json

import pytest

from facade.control.catalog.closure import Closure, Wanted
from facade.control.catalog.walk import MAX_DEPTH, MAX_MANIFESTS, MAX_REFERRERS, Walk
from facade.errors import Integrity, Invalid, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from facade.oci.platform import Platform
from facade.oci.reference import Repository, Tag
from facade.reasons import Reason
from facade.upstream.connection import Connection
from tests.support.manifests import PlainImage, descriptor, image_index, image_manifest
from tests.support.memory_registry import MemoryRegistry, digests_of

CONNECTION = Connection("c1", RegistryHost("registry.example"), "static")
REPOSITORY = Repository("org/app")
APP = PlainImage("app")
ARM = Platform.parse("linux/arm64")


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    registry.add_image(APP, "v1")
    return registry


async def walk(
    registry: MemoryRegistry,
    reference: str = "v1",
    wanted: Wanted | None = None,
    *,
    collect: bool = False,
) -> Closure:
    made = Walk(registry, CONNECTION, REPOSITORY, asyncio.Semaphore(4), collect=collect)
    parsed = Digest.parse(reference) if ":" in reference else Tag.parse(reference)
    return await made.run(parsed, wanted or Wanted())


async def test_everything_is_reached_by_tag_and_by_digest(registry: MemoryRegistry) -> None:
    closure = await walk(registry)
    assert closure.digest == Digest.of(APP.index)
    assert (closure.length, closure.media_type) == (len(APP.index), OCI_INDEX)
    assert list(closure.manifests) == digests_of(APP)
    blobs = [blob for p in APP.platforms for blob in (APP.config(p), *APP.layers(p))]
    assert closure.blobs == {Digest.of(blob): len(blob) for blob in blobs}
    assert closure.bytes == sum(map(len, blobs)) + sum(map(len, APP.every_manifest))
    assert (await walk(registry, str(closure.digest))).digest == closure.digest


async def test_chosen_platforms_only(registry: MemoryRegistry) -> None:
    closure = await walk(registry, wanted=Wanted((ARM,)))
    assert list(closure.manifests) == [digests_of(APP)[0], digests_of(APP)[2]]
    assert Digest.of(APP.config("linux/amd64")) not in closure.blobs
    assert registry.asked[str(digests_of(APP)[1])] == 0


async def test_a_platform_that_is_not_there_names_those_that_are(registry: MemoryRegistry) -> None:
    with pytest.raises(Invalid, match=r"no linux/riscv64\. It has: linux/amd64, linux/arm64"):
        await walk(registry, wanted=Wanted((ARM, Platform.parse("linux/riscv64"))))


async def test_a_missing_layer(registry: MemoryRegistry) -> None:
    lost = Digest.of(APP.layers("linux/arm64")[1])
    del registry.blobs[lost]
    with pytest.raises(Upstream, match=f"does not have the blob {lost}"):
        await walk(registry)
    assert (await walk(registry, wanted=Wanted((Platform.parse("linux/amd64"),)))).blobs


async def test_a_layer_of_another_size(registry: MemoryRegistry) -> None:
    registry.sizes[Digest.of(APP.layers("linux/arm64")[1])] = 5
    with pytest.raises(Integrity, match="has 5"):
        await walk(registry)


async def test_a_child_that_is_missing(registry: MemoryRegistry) -> None:
    del registry.manifests[str(digests_of(APP)[2])]
    with pytest.raises(Upstream) as caught:
        await walk(registry)
    assert caught.value.reason is Reason.UPSTREAM_NOT_FOUND


async def test_a_child_of_another_size_than_the_index_says(registry: MemoryRegistry) -> None:
    child = APP.manifests["linux/arm64"]
    registry.add(image_index([descriptor(child, OCI_MANIFEST, size=7)]), "bad")
    with pytest.raises(Integrity, match="has 7 bytes"):
        await walk(registry, "bad")


async def test_a_child_of_another_type_than_the_index_says(registry: MemoryRegistry) -> None:
    registry.add(image_index([descriptor(APP.manifests["linux/arm64"], DOCKER_MANIFEST)]), "bad")
    with pytest.raises(Invalid, match="was promised"):
        await walk(registry, "bad")


async def test_a_manifest_with_two_faces(registry: MemoryRegistry) -> None:
    two = json.loads(APP.index) | {"layers": [], "config": descriptor(b"x", "a/b")}
    registry.add(json.dumps(two).encode(), "bad")
    with pytest.raises(Invalid, match="both"):
        await walk(registry, "bad")


async def test_docker_schema_1_says_what_to_do(registry: MemoryRegistry) -> None:
    registry.add(b'{"schemaVersion": 1, "fsLayers": []}', "old")
    with pytest.raises(Invalid, match="Re-push"):
        await walk(registry, "old")


async def test_wrong_bytes_under_a_digest(registry: MemoryRegistry) -> None:
    child = str(digests_of(APP)[1])
    registry.manifests[child] = registry.manifests[str(digests_of(APP)[2])]
    with pytest.raises(Integrity, match=child):
        await walk(registry)


async def test_one_blob_with_two_sizes(registry: MemoryRegistry) -> None:
    layer = descriptor(b"layer", "a/b")
    lying = json.loads(image_manifest(b"config", []))
    lying["layers"] = [layer, layer | {"size": 99}]
    registry.add(json.dumps(lying).encode(), "bad")
    registry.add_blobs(b"config", b"layer")
    with pytest.raises(Integrity, match="two sizes"):
        await walk(registry, "bad")


async def test_too_deep(registry: MemoryRegistry) -> None:
    data = APP.index
    for _ in range(MAX_DEPTH - 1):
        registry.add(data)
        data = image_index([descriptor(data, OCI_INDEX)])
    registry.add(data, "deep")
    with pytest.raises(Invalid, match="levels deep"):
        await walk(registry, "deep")


async def test_a_body_that_names_no_type_has_the_registrys(registry: MemoryRegistry) -> None:
    document = json.loads(APP.manifests["linux/arm64"])
    del document["mediaType"]
    bare = json.dumps(document).encode()
    registry.add(bare, "docker", media_type=DOCKER_MANIFEST)
    registry.add(APP.manifests["linux/arm64"], "lying", media_type=DOCKER_MANIFEST)
    registry.add(APP.manifests["linux/arm64"], "vague", media_type="text/plain")
    assert (await walk(registry, "docker")).media_type == DOCKER_MANIFEST
    assert (await walk(registry, "lying")).media_type == OCI_MANIFEST
    assert (await walk(registry, "vague")).media_type == OCI_MANIFEST


async def test_a_single_image_is_for_its_own_platform_only(registry: MemoryRegistry) -> None:
    config = json.dumps({"os": "linux", "architecture": "arm64"}).encode()
    registry.add_blobs(config, b"layer")
    registry.add(image_manifest(config, [b"layer"]), "single")
    assert (await walk(registry, "single", Wanted((ARM,)))).blobs
    with pytest.raises(Invalid, match="single image for linux/arm64"):
        await walk(registry, "single", Wanted((Platform.parse("linux/amd64"),)))


async def test_by_sha512_is_refused_in_words(registry: MemoryRegistry) -> None:
    sha512 = Digest.of(APP.index, "sha512")
    registry.manifests[str(sha512)] = registry.manifests["v1"]
    with pytest.raises(Invalid, match="sha256"):
        await walk(registry, str(sha512))


async def test_referrers_come_along_with_what_they_reach(registry: MemoryRegistry) -> None:
    subject = descriptor(APP.index, OCI_INDEX)
    signature = image_manifest(b"{}", [b"signature"], subject=subject, artifactType="a/sig")
    registry.add(signature)
    registry.add_blobs(b"{}", b"signature")
    registry.referring[Digest.of(APP.index)] = image_index([descriptor(signature, OCI_MANIFEST)])
    closure = await walk(registry, wanted=Wanted(referrers=True))
    assert closure.referrers == (Digest.of(signature),)
    assert Digest.of(signature) in closure.manifests
    assert Digest.of(b"signature") in closure.blobs
    assert (await walk(registry)).referrers == ()


async def test_a_referrer_that_refers_to_something_else(registry: MemoryRegistry) -> None:
    stranger = image_manifest(b"{}", [], subject=descriptor(b"other", OCI_INDEX))
    registry.add(stranger)
    registry.referring[Digest.of(APP.index)] = image_index([descriptor(stranger, OCI_MANIFEST)])
    with pytest.raises(Invalid, match="does not refer"):
        await walk(registry, wanted=Wanted(referrers=True))


async def test_collecting_names_every_problem_but_not_an_outage(registry: MemoryRegistry) -> None:
    lost, short = (Digest.of(layer) for layer in APP.layers("linux/arm64"))
    del registry.blobs[lost]
    registry.sizes[short] = 1
    gone = digests_of(APP)[1]
    del registry.manifests[str(gone)]
    closure = await walk(registry, collect=True)
    assert {digest for digest, _ in closure.problems} == set(map(str, (lost, short, gone)))
    registry.failures[str(short)] = Upstream("down", reason=Reason.UPSTREAM_UNREACHABLE)
    with pytest.raises(Upstream, match="down"):
        await walk(registry, collect=True)


async def test_requests_at_once_are_bounded() -> None:
    class Busy(MemoryRegistry):
        running = most = 0

        async def blob_size(
            self, connection: Connection, repository: Repository, digest: Digest
        ) -> int | None:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            self.running -= 1
            return await super().blob_size(connection, repository, digest)

    registry = Busy()
    layers = [f"layer {number}".encode() for number in range(50)]
    registry.add_blobs(b"config", *layers)
    registry.add(image_manifest(b"config", layers), "v1")
    await walk(registry)
    assert registry.most == 4


async def test_more_manifests_than_one_artifact_may_have(registry: MemoryRegistry) -> None:
    many = [image_manifest(b"config", [], annotations={"n": str(n)}) for n in range(MAX_MANIFESTS)]
    for manifest in many:
        registry.add(manifest)
    registry.add(image_index([descriptor(data, OCI_MANIFEST) for data in many]), "huge")
    with pytest.raises(Invalid, match="choose platforms"):
        await walk(registry, "huge")


async def test_more_referrers_than_one_artifact_may_have(registry: MemoryRegistry) -> None:
    subject = descriptor(APP.index, OCI_INDEX)
    many = [
        image_manifest(b"{}", [], subject=subject, annotations={"n": str(n)})
        for n in range(MAX_REFERRERS + 1)
    ]
    for manifest in many:
        registry.add(manifest)
    children = [descriptor(data, OCI_MANIFEST) for data in many]
    registry.referring[Digest.of(APP.index)] = image_index(children)
    with pytest.raises(Invalid, match="--with-referrers"):
        await walk(registry, wanted=Wanted(referrers=True))


async def test_a_child_that_could_never_be_served(registry: MemoryRegistry) -> None:
    huge = descriptor(b"x", OCI_MANIFEST, size=5 * 1024 * 1024)
    registry.add(image_index([huge]), "bad")
    with pytest.raises(Invalid, match="larger than"):
        await walk(registry, "bad")


async def test_a_child_of_unknown_type_is_a_blob(registry: MemoryRegistry) -> None:
    registry.add_blobs(b"wasm")
    registry.add(image_index([descriptor(b"wasm", "application/wasm")]), "odd")
    assert (await walk(registry, "odd")).blobs == {Digest.of(b"wasm"): 4}
