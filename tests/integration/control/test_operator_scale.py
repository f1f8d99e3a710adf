"""Large repositories and large batches, against a real `facade up`: bounded, interruptible, whole."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from facade.control.catalog.browse import MAX_PAGES
from facade.oci.digest import Digest
from tests.support.facade_process import FacadeProcess, facade_up
from tests.support.image import one_layer_image, small_image
from tests.support.people import connect, memory_of, operator
from tests.support.registry import Registry
from tests.support.signing import StockClient

REPOSITORY = "org/app"
TAGS = 50_000
TAGS_SECONDS = 20.0
TAGS_MEMORY_BYTES = 64 * 1024 * 1024
"""What listing them may add to the process: some times what the tags themselves take."""


async def test_50_000_tags_in_bounded_time_and_memory(tmp_path: Path) -> None:
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        digest = registry.add_image(REPOSITORY, small_image())
        for number in range(TAGS):
            registry.tag(REPOSITORY, f"v1.{number // 100}.{number % 100}", digest)
        host = await connect(facade, registry)
        before = memory_of(facade.pid)
        async with operator(facade) as api:
            started = time.monotonic()
            listing = asyncio.create_task(_tags(facade, host))
            slowest = 0.0
            while not listing.done():
                asked = time.monotonic()
                async with api.get("/api/v1/connections") as answer:
                    assert answer.status == 200
                slowest = max(slowest, time.monotonic() - asked)
                await asyncio.sleep(0.02)
            body = await listing
        assert time.monotonic() - started < TAGS_SECONDS
        assert slowest < 1.5, "others are answered meanwhile"
        assert memory_of(facade.pid) - before < TAGS_MEMORY_BYTES
        assert (body["clipped"], body["read"], body["pages"]) == (False, TAGS, TAGS // 1000)
        names = [tag["name"] for tag in body["tags"]]
        assert len(names) == TAGS
        assert names[:2] == ["v1.499.99", "v1.499.98"]

        # A registry with small pages: the list is clipped, and says where.
        registry.page_size = 10
        told = await facade.must("registry", "tags", f"{host}/{REPOSITORY}", "--json")
        read = MAX_PAGES * registry.page_size
        assert (told.json["clipped"], told.json["read"]) == (True, read)
        assert (
            told.json["last"] == sorted(f"v1.{n // 100}.{n % 100}" for n in range(TAGS))[read - 1]
        )
        assert f"clipped after {read} tags" in told.stderr


async def _tags(facade: FacadeProcess, host: str) -> dict[str, Any]:
    async with (
        operator(facade) as api,
        api.get(f"/api/v1/connections/{host}/tags", params={"repository": REPOSITORY}) as answer,
    ):
        assert answer.status == 200
        body: dict[str, Any] = await answer.json()
        return body


@pytest.mark.slow
async def test_1000_tags_with_37_bad_ones_killed_in_the_middle_and_run_again(
    tmp_path: Path,
) -> None:
    async with Registry() as registry, facade_up(tmp_path / "state") as facade:
        wrong = _fill(registry)
        host = await connect(facade, registry)
        names = [f"{host}/{REPOSITORY}:v{number}" for number in range(1000)]
        order = ("artifact", "import", *names, "--fleet", "dev", "--json")
        before = await _versions(facade)

        killed = asyncio.create_task(facade.cli(*order))
        async with asyncio.timeout(30):
            while registry.count("*/manifests/*", None) < 400:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.02)
        await facade.kill()
        finished = await killed
        assert finished.code == 1
        assert "run it again" in finished.stderr or "answers at" in finished.stderr, finished.stderr

        await facade.start()
        assert await _versions(facade) == before, "nothing of half a batch is to be seen"
        done = await facade.cli(*order)
        assert done.code == 1
        results = {result["tag"]: result for result in done.json["results"]}
        failed = {tag: each["error"] for tag, each in results.items() if each["status"] == "failed"}
        assert {tag: failed[tag] for tag in failed.keys() - wrong.keys()} == {}
        assert failed.keys() == wrong.keys()
        assert "37 of 1000 failed" in done.stderr
        for tag, words in wrong.items():
            assert words in failed[tag]
        listed = (await facade.must("artifact", "list", "--json")).json
        assert listed["total"] == 963
        assert {item["version"] for item in listed["items"]} == results.keys() - failed.keys()
        after = await _versions(facade)
        assert after["dev"] == before["dev"] + 1, "one version for the whole batch"
        assert after["snapshot"] == before["snapshot"] + 1

        pinned = (facade.state / "root.json").read_bytes()
        metadata = facade.state / "trust" / "repository" / "metadata"
        stock = StockClient(metadata, pinned, _made(tmp_path / "stock"))
        assert await asyncio.to_thread(stock.target, "dev/app/v999") is not None

        again = await facade.cli(*order)
        statuses = [result["status"] for result in again.json["results"]]
        assert (statuses.count("unchanged"), statuses.count("failed")) == (963, 37)
        assert (await _versions(facade))["dev"] == after["dev"]


def _fill(registry: Registry) -> Mapping[str, str]:
    """1,000 tags, 37 of them bad; what must be said of each of those."""
    wrong: dict[str, str] = {}
    for number in range(1000):
        tag, image = f"v{number}", one_layer_image(b"layer of %d" % number)
        kind = number % 27
        if kind == 0 and len(wrong) < 37:
            layer = Digest.of(b"layer of %d" % number)
            match len(wrong) % 3:
                case 0:  # the tag is not there at all
                    wrong[tag] = tag
                case 1:
                    registry.add_image(REPOSITORY, image, tag)
                    registry.forget(REPOSITORY, layer)
                    wrong[tag] = str(layer)
                case _:
                    schema1 = b'{"schemaVersion": 1, "name": "old %d"}' % number
                    registry.add_manifest(REPOSITORY, schema1, "application/json", tag)
                    wrong[tag] = "schema 1"
        else:
            registry.add_image(REPOSITORY, image, tag)
    assert len(wrong) == 37
    return wrong


async def _versions(facade: FacadeProcess) -> dict[str, int]:
    status = (await facade.must("trust", "status", "--json")).json
    return {role["role"]: role["version"] for role in status["roles"]}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
