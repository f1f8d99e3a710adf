"""Pulling over real mutual TLS: manifests, blobs, headers, ranges, conditions, HEAD, metadata."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX
from facade.target import SignedTarget
from facade.wings import Pulled
from tests.support.facade_app import FacadeApp, path
from tests.support.image import one_layer_image, small_image
from tests.support.registry import Registry

IMAGE = small_image()
LAYER = max(IMAGE.blobs, key=lambda digest: len(IMAGE.blobs[digest]))
LAYER_DATA = IMAGE.blobs[LAYER]
SIZE = len(LAYER_DATA)


@dataclass
class Bench:
    facade: FacadeApp
    registry: Registry
    target: SignedTarget
    kiosk: aiohttp.ClientSession

    def manifest(self, digest: Digest | str = IMAGE.index) -> str:
        return path(self.registry, "org/app", "manifests", digest)

    def blob(self, digest: Digest | str = LAYER) -> str:
        return path(self.registry, "org/app", "blobs", digest)

    def get(
        self, url: str, method: str = "GET", **headers: str
    ) -> "aiohttp.client._RequestContextManager":
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.kiosk.request(method, url, headers=names)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        async with facade.device() as kiosk:
            yield Bench(facade, registry, target, kiosk)


async def test_a_whole_image_is_pulled_byte_for_byte(bench: Bench) -> None:
    for digest, (media_type, data) in IMAGE.manifests.items():
        async with bench.get(bench.manifest(digest)) as answer:
            assert (answer.status, await answer.read()) == (200, data)
            assert answer.headers["Content-Type"] == media_type
    for digest, data in IMAGE.blobs.items():
        async with bench.get(bench.blob(digest)) as answer:
            assert (answer.status, await answer.read()) == (200, data)
            assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_headers_are_those_of_the_contract(bench: Bench) -> None:
    for url, digest, size in (
        (bench.manifest(), IMAGE.index, len(IMAGE.manifests[IMAGE.index][1])),
        (bench.blob(), LAYER, SIZE),
    ):
        for method in ("HEAD", "GET"):
            async with bench.get(url, method) as answer:
                assert answer.headers["Content-Length"] == str(size)
                assert answer.headers["Docker-Content-Digest"] == str(digest)
                assert answer.headers["ETag"] == f'"{digest}"'
                assert answer.headers["Accept-Ranges"] == "bytes"
                assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
                assert "Transfer-Encoding" not in answer.headers
                assert answer.headers["Server"] == "facade"


async def test_head_never_goes_upstream(bench: Bench) -> None:
    async with bench.get(bench.blob(), "HEAD") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    async with bench.get(bench.manifest(), "HEAD") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == OCI_INDEX
    assert bench.registry.requests == []


async def test_the_second_pull_costs_the_registry_nothing(bench: Bench) -> None:
    async with bench.get(bench.blob()) as answer:
        await answer.read()
    await bench.facade.settled()
    bench.registry.requests.clear()
    async with bench.get(bench.blob()) as answer:
        assert await answer.read() == LAYER_DATA
    assert bench.registry.requests == []
    pulled = [event for event in bench.facade.control.events if isinstance(event, Pulled)]
    assert [event.cache for event in pulled] == ["miss", "hit"]
    assert pulled[1].bytes_sent == SIZE


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=0-{SIZE * 2}", 0, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
async def test_one_range_is_sent(
    bench: Bench, header: str, start: int, stop: int, *, warm: bool
) -> None:
    if warm:
        async with bench.get(bench.blob()) as answer:
            await answer.read()
        await bench.facade.settled()
    async with bench.get(bench.blob(), Range=header) as answer:
        assert answer.status == 206
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert answer.headers["Content-Length"] == str(stop - start)
        assert await answer.read() == LAYER_DATA[start:stop]


@pytest.mark.parametrize(
    "header", ["bytes=0-1,3-4", "items=0-1", "bytes=5-2", "bytes=", "bytes=a-b", "bytes"]
)
async def test_what_is_no_single_range_gets_the_whole(bench: Bench, header: str) -> None:
    async with bench.get(bench.blob(), Range=header) as answer:
        assert (answer.status, await answer.read()) == (200, LAYER_DATA)


@pytest.mark.parametrize("kind", ["blob", "manifest"])
async def test_an_unsatisfiable_range_is_416_with_the_size(bench: Bench, kind: str) -> None:
    url = bench.blob() if kind == "blob" else bench.manifest()
    size = SIZE if kind == "blob" else len(IMAGE.manifests[IMAGE.index][1])
    async with bench.get(url, Range=f"bytes={size}-") as answer:
        assert answer.status == 416
        assert answer.headers["Content-Range"] == f"bytes */{size}"
        assert (await answer.json())["errors"][0]["code"] == "RANGE_INVALID"
    assert bench.registry.count() == 0


async def test_a_range_of_a_manifest_works_too(bench: Bench) -> None:
    async with bench.get(bench.manifest(), Range="bytes=1-3") as answer:
        assert (answer.status, await answer.read()) == (206, IMAGE.manifests[IMAGE.index][1][1:4])


async def test_a_range_on_head_is_ignored(bench: Bench) -> None:
    async with bench.get(bench.blob(), "HEAD", Range="bytes=0-1") as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(SIZE))


@pytest.mark.parametrize(
    ("condition", "status"), [(f'"{LAYER}"', 206), ('"sha256:other"', 200), (f'W/"{LAYER}"', 200)]
)
async def test_if_range_decides_between_part_and_whole(
    bench: Bench, condition: str, status: int
) -> None:
    async with bench.get(bench.blob(), Range="bytes=0-1", If_Range=condition) as answer:
        assert answer.status == status


@pytest.mark.parametrize("tag", ['"{}"', 'W/"{}"', '"x", "{}"', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_if_none_match_is_304_without_a_fetch(bench: Bench, tag: str, method: str) -> None:
    for url, digest in ((bench.blob(), LAYER), (bench.manifest(), IMAGE.index)):
        async with bench.get(url, method, If_None_Match=tag.format(digest)) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
            assert answer.headers["ETag"] == f'"{digest}"'
    assert bench.registry.requests == []


async def test_another_etag_gets_the_content(bench: Bench) -> None:
    async with bench.get(bench.blob(), If_None_Match='"sha256:other"') as answer:
        assert (answer.status, await answer.read()) == (200, LAYER_DATA)


async def test_every_way_to_name_the_registry(bench: Bench) -> None:
    host = str(bench.registry.host)
    tail = f"org/app/manifests/{IMAGE.index}"
    for url in (f"/v2/{host}/{tail}", f"/v2/{tail}?ns={host}", f"/v2/{host}/{tail}?ns={host}"):
        async with bench.get(url) as answer:
            assert answer.status == 200, url


async def test_the_ping_answers_and_probes_of_the_old_api_do_not(bench: Bench) -> None:
    async with bench.get("/v2/") as answer:
        assert (answer.status, await answer.read()) == (200, b"{}")
        assert "WWW-Authenticate" not in answer.headers
    async with bench.get("/v1/_ping") as answer:
        assert answer.status == 404


async def test_whoami_tells_what_the_certificate_says(bench: Bench) -> None:
    async with bench.get("/whoami") as answer:
        who = await answer.json()
    assert (who["fleet"], who["device"]) == ("dev", "kiosk-7")
    assert set(who) == {"fleet", "device", "serial", "not_after"}
    assert who["not_after"].endswith("Z")


async def test_metadata_is_served_to_verify_with(bench: Bench) -> None:
    for name in ("timestamp.json", "1.root.json", "2.dev.json"):
        async with bench.get(f"/tuf/{name}") as answer:
            assert answer.status == 200
            assert await answer.read() == bench.facade.tuf.files[name]


@pytest.mark.parametrize(
    "name", ["1.other.json", "9.dev.json", "9.nobody.json", "..%2Fpki%2Fserver.key", "", "x/y.json"]
)
async def test_another_fleets_role_and_a_missing_file_are_the_same_404(
    bench: Bench, name: str
) -> None:
    async with bench.get(f"/tuf/{name}") as answer:
        body = await answer.json()
    assert answer.status == 404
    assert body["errors"][0]["message"] == "There is no such metadata file."


async def test_a_target_is_where_a_tuf_client_looks_for_it(bench: Bench) -> None:
    async with bench.get(f"/targets/dev/app/{IMAGE.index.hex}.v1") as answer:
        assert answer.status == 200
        assert await answer.read() == IMAGE.manifests[IMAGE.index][1]


@pytest.mark.parametrize(
    "where",
    [
        f"other/app/{IMAGE.index.hex}.v1",
        f"dev/app/{IMAGE.index.hex}.v2",
        f"dev/app/{LAYER.hex}.v1",
        "dev/app/v1",
        "dev",
        "",
    ],
)
async def test_every_other_target_is_the_same_404(bench: Bench, where: str) -> None:
    async with bench.get(f"/targets/{where}") as answer:
        body = await answer.json()
    assert (answer.status, body["errors"][0]["message"]) == (404, "There is no such target.")


async def test_referrers_of_an_image_signed_without_are_an_empty_index(bench: Bench) -> None:
    url = path(bench.registry, "org/app", "referrers", IMAGE.index)
    async with bench.get(url) as answer:
        assert answer.headers["Content-Type"] == OCI_INDEX
        assert json.loads(await answer.read())["manifests"] == []
    async with bench.get(f"{url}?artifactType=application/vnd.sig") as answer:
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"


async def test_one_connection_carries_many_requests(bench: Bench) -> None:
    for _ in range(20):
        async with bench.get(bench.manifest()) as answer:
            await answer.read()
    text = bench.facade.metrics.render().decode()
    assert "facade_handshakes_total 1.0" in text
    assert 'facade_requests_total{route="manifests",status="200"} 20.0' in text


async def test_twelve_devices_at_once_are_one_upstream_get(tmp_path: Path) -> None:
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        payload = bytes(range(256)) * 16384  # 4 MiB
        image = one_layer_image(payload)
        await facade.sign(registry, "org/app", image)
        layer = Digest.of(payload)

        async def pull(number: int) -> bytes:
            async with (
                facade.device(name=f"kiosk-{number}") as kiosk,
                kiosk.get(path(registry, "org/app", "blobs", layer)) as answer,
            ):
                assert answer.status == 200
                return await answer.read()

        bodies = await asyncio.gather(*(pull(number) for number in range(12)))
        assert all(body == payload for body in bodies)
        assert registry.count("*/blobs/*") == 1
