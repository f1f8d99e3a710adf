"""Browsing: order, hidden tags, clipping, and what a tag is just now."""

import json

import pytest

from facade.control.catalog.browse import MAX_TAGS, Browse
from facade.control.catalog.summary import MAX_IMAGES, PlatformSummary
from facade.errors import Invalid, NotFound, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from facade.oci.reference import Repository, Tag
from facade.upstream.connection import Connection
from tests.support.manifests import PlainImage, descriptor, image_index, image_manifest
from tests.support.memory_registry import MemoryRegistry, OneConnection

HOST = RegistryHost("registry.example")
CONNECTION = Connection("c1", HOST, "static")
REPOSITORY = Repository("org/app")
COSIGN = "sha256-" + "a" * 64 + ".sig"


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry(pages=[["v1.0", "v1.10", COSIGN], ["v1.9", "latest", "v1.0"]])


@pytest.fixture
def browse(registry: MemoryRegistry) -> Browse:
    return Browse(OneConnection(CONNECTION), registry)


async def test_tags_come_ordered_once_and_without_tools_own(browse: Browse) -> None:
    found = await browse.tags(HOST, REPOSITORY)
    assert found.tags == ("latest", "v1.10", "v1.9", "v1.0")
    assert (found.pages, found.clipped, found.hidden) == (2, False, 1)
    assert found.ordered_by == "best-effort"
    everything = await browse.tags(HOST, REPOSITORY, hidden=True)
    assert everything.tags[-1] == COSIGN
    assert everything.hidden == 0


async def test_a_pattern(browse: Browse) -> None:
    assert (await browse.tags(HOST, REPOSITORY, match="v1.1*")).tags == ("v1.10",)


async def test_a_clipped_list_says_so(browse: Browse, registry: MemoryRegistry) -> None:
    registry.clipped = True
    found = await browse.tags(HOST, REPOSITORY)
    assert (found.clipped, found.read, found.last) == (True, 5, "v1.0")


async def test_a_host_that_is_not_connected_is_not_asked(browse: Browse) -> None:
    with pytest.raises(NotFound):
        await browse.tags(RegistryHost("ghcr.io"), REPOSITORY)


async def test_the_first_tags_of_the_first_page(browse: Browse, registry: MemoryRegistry) -> None:
    assert await browse.first_tags(CONNECTION, REPOSITORY) == ["v1.10", "v1.0"]
    registry.pages = []
    assert await browse.first_tags(CONNECTION, REPOSITORY) == []


async def test_an_index_shows_its_platforms(browse: Browse, registry: MemoryRegistry) -> None:
    app = PlainImage("app")
    children = json.loads(app.index)["manifests"]
    attestation = descriptor(b"att", OCI_MANIFEST)
    attestation["platform"] = {"os": "unknown", "architecture": "unknown"}
    created = {"org.opencontainers.image.created": "2025-06-01T00:00:00Z"}
    digest = registry.add(image_index([*children, attestation], annotations=created), "v1")
    found = await browse.manifest(HOST, REPOSITORY, Tag("v1"))
    assert (found.digest, found.media_type, found.total_bytes) == (digest, OCI_INDEX, None)
    amd64, arm64 = (app.manifests[platform] for platform in app.platforms)
    assert found.platforms == (
        PlatformSummary("linux/amd64", Digest.of(amd64), len(amd64)),
        PlatformSummary("linux/arm64", Digest.of(arm64), len(arm64)),
    ), "its images are not there: shown without their sizes"
    assert found.created == "2025-06-01T00:00:00Z"
    assert found.annotations == created


async def test_an_index_shows_the_sizes_of_its_images_and_when_they_were_made(
    browse: Browse, registry: MemoryRegistry
) -> None:
    config = json.dumps({"os": "linux", "architecture": "arm64", "created": "2025-01-01"}).encode()
    registry.add_blobs(config)
    shared, own = [b"shared layer"], [b"shared layer", b"own"]
    images = [image_manifest(config, layers) for layers in (shared, own)]
    children = []
    for data, architecture in zip(images, ("arm64", "amd64"), strict=True):
        registry.add(data)
        platform = {"os": "linux", "architecture": architecture}
        children.append({**descriptor(data, OCI_MANIFEST), "platform": platform})
    registry.add(image_index(children), "v1")
    found = await browse.manifest(HOST, REPOSITORY, Tag("v1"))
    small = len(config) + len(shared[0])
    assert [each.total_bytes for each in found.platforms] == [small, small + len(own[1])]
    assert found.total_bytes == small + len(own[1]), "what they share counts once"
    assert found.created == "2025-01-01"


async def test_an_index_of_very_many_images_is_shown_without_reading_them(
    browse: Browse, registry: MemoryRegistry
) -> None:
    data = image_manifest(b"{}", [])
    registry.add(data)
    platform = {"os": "linux", "architecture": "arm64"}
    child = {**descriptor(data, OCI_MANIFEST), "platform": platform}
    registry.add(image_index([child] * (MAX_IMAGES + 1)), "v1")
    found = await browse.manifest(HOST, REPOSITORY, Tag("v1"))
    assert len(found.platforms) == MAX_IMAGES + 1
    assert found.total_bytes is None
    assert registry.asked[str(Digest.of(data))] == 0


async def test_more_tags_than_are_read_are_clipped_even_on_one_page(
    browse: Browse, registry: MemoryRegistry
) -> None:
    registry.pages = [[f"{n:06}" for n in range(MAX_TAGS + 5)], ["never-read"]]
    found = await browse.tags(HOST, REPOSITORY)
    assert (found.clipped, found.read, found.last) == (True, MAX_TAGS, f"{MAX_TAGS - 1:06}")
    assert found.pages == 1


async def test_an_image_shows_what_its_config_says(
    browse: Browse, registry: MemoryRegistry
) -> None:
    config = json.dumps(
        {"os": "linux", "architecture": "arm64", "variant": "v8", "created": "2025-01-01T00:00:00Z"}
    ).encode()
    registry.add_blobs(config)
    digest = registry.add(image_manifest(config, [b"layer", b"layer"]), "v1")
    found = await browse.manifest(HOST, REPOSITORY, digest)
    assert [each.platform for each in found.platforms] == ["linux/arm64/v8"]
    assert found.created == "2025-01-01T00:00:00Z"
    assert found.total_bytes == len(config) + len(b"layer"), "a layer named twice counts once"


@pytest.mark.parametrize("sent", [b"not what was promised", b"x" * 9999, b"[]"])
async def test_a_config_that_cannot_be_read_says_nothing(
    browse: Browse, registry: MemoryRegistry, sent: bytes
) -> None:
    config = b"promised" if sent != b"[]" else sent
    registry.blobs[Digest.of(config)] = sent
    registry.add(image_manifest(config, []), "v1")
    found = await browse.manifest(HOST, REPOSITORY, Tag("v1"))
    assert (found.platforms, found.created) == ((), None)


async def test_what_is_no_image_is_refused_in_words(
    browse: Browse, registry: MemoryRegistry
) -> None:
    registry.add(b"{}", "v1")
    with pytest.raises(Invalid, match="schemaVersion"):
        await browse.manifest(HOST, REPOSITORY, Tag("v1"))
    with pytest.raises(Upstream):
        await browse.manifest(HOST, REPOSITORY, Tag("v2"))
