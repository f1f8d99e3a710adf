"""Manifests that no signed artifact needs are forgotten; every other one stays."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from facade.control.catalog.collecting import EVERY_SECONDS, GRACE_SECONDS, ManifestCollection
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from facade.oci.reference import Repository
from tests.support.importing import HOST, REPOSITORY, Importing, importing
from tests.support.manifests import PlainImage, descriptor, image_index, image_manifest
from tests.support.memory_registry import digests_of

ONE, TWO = PlainImage("one"), PlainImage("two")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Importing]:
    async with importing(tmp_path, "dev", "shop") as parts:
        parts.registry.add_image(ONE, "v1")
        parts.registry.add_image(TWO, "v2")
        yield parts


@pytest.fixture
def collection(parts: Importing) -> ManifestCollection:
    return ManifestCollection(parts.signed.publisher, parts.manifests, parts.clock)


async def kept(parts: Importing, *images: PlainImage) -> list[bool]:
    """Whether all of each image is kept; never a part of one."""
    answers = []
    for image in images:
        found = {
            await parts.manifests.get(HOST, REPOSITORY, digest) is not None
            for digest in digests_of(image)
        }
        [answer] = found
        answers.append(answer)
    return answers


async def test_what_was_withdrawn_goes_after_a_day_and_the_rest_stays(
    parts: Importing, collection: ManifestCollection
) -> None:
    await parts.run("v1", "v2")
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == 0
    await parts.artifacts.withdraw("dev", "app", "v1", actor="op")
    assert await collection.collect() == len(digests_of(ONE))
    assert await kept(parts, ONE, TWO) == [False, True]
    # It can be imported again, beside everything else.
    await parts.run("v1", version="again")
    assert await kept(parts, ONE, TWO) == [True, True]


async def test_what_another_fleet_still_has_stays(
    parts: Importing, collection: ManifestCollection
) -> None:
    await parts.run("v1")
    await parts.run("v1", fleet="shop", name="till")
    await parts.artifacts.withdraw("dev", "app", "v1", actor="op")
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == 0
    assert await kept(parts, ONE) == [True]


async def test_what_an_import_has_kept_and_not_signed_yet_stays(
    parts: Importing, collection: ManifestCollection
) -> None:
    manifests = {Digest.of(data): data for data in ONE.every_manifest}
    await parts.manifests.keep(HOST, REPOSITORY, manifests)
    parts.clock.advance(GRACE_SECONDS)
    assert await collection.collect() == 0
    assert await kept(parts, ONE) == [True]
    parts.clock.advance(1)
    await parts.manifests.keep(HOST, REPOSITORY, manifests)  # again, by another import
    assert await collection.collect() == 0
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == len(manifests)


async def test_the_same_digest_from_another_repository_is_another_manifest(
    parts: Importing, collection: ManifestCollection
) -> None:
    await parts.run("v1")
    other = RegistryHost("elsewhere.example"), Repository("org/app")
    await parts.manifests.keep(*other, {Digest.of(ONE.index): ONE.index})
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == 1
    assert await parts.manifests.get(*other, Digest.of(ONE.index)) is None
    assert await kept(parts, ONE) == [True]


async def test_what_lies_below_an_index_in_an_index_stays(
    parts: Importing, collection: ManifestCollection
) -> None:
    inner = image_index([descriptor(ONE.index, OCI_INDEX)])
    parts.registry.add(inner, "nested")
    await parts.run("nested")
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == 0
    assert await kept(parts, ONE) == [True]


async def test_signatures_that_were_imported_along_stay(
    parts: Importing, collection: ManifestCollection
) -> None:
    config, layer = b"{}", b"a signature"
    parts.registry.add_blobs(config, layer)
    subject = descriptor(ONE.index, OCI_INDEX)
    signature = image_manifest(config, (layer,), subject=subject)
    parts.registry.add(signature)
    parts.registry.referring[Digest.of(ONE.index)] = image_index(
        [descriptor(signature, OCI_MANIFEST)]
    )
    await parts.run("v1", with_referrers=True)
    assert await parts.manifests.get(HOST, REPOSITORY, Digest.of(signature)) == signature
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == 0
    await parts.artifacts.withdraw("dev", "app", "v1", actor="op")
    assert await collection.collect() == len(digests_of(ONE)) + 1


async def test_where_a_manifest_is_damaged_nothing_is_forgotten(
    parts: Importing, collection: ManifestCollection, tmp_path: Path
) -> None:
    """What it named cannot be told any more."""
    await parts.run("v1", "v2")
    await parts.artifacts.withdraw("dev", "app", "v2", actor="op")
    with closing(sqlite3.connect(tmp_path / "facade.db", isolation_level=None)) as database:
        database.execute(
            "UPDATE closure_manifests SET data = ? WHERE digest = ?",
            (image_index([]), str(Digest.of(ONE.index))),
        )
    parts.clock.advance(GRACE_SECONDS + 1)
    with capture_logs() as logs:
        assert await collection.collect() == 0
    assert [entry["event"] for entry in logs] == ["manifests_not_collected"]
    assert await kept(parts, TWO) == [True]
    await parts.run("v1")  # repairs it
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == len(digests_of(TWO))


async def test_many_manifests_are_told_apart_in_batches(
    parts: Importing, collection: ManifestCollection
) -> None:
    """More than one statement may hold."""
    many = {Digest.of(data): data for data in (f'{{"n":{n}}}'.encode() for n in range(1201))}
    await parts.manifests.keep(HOST, REPOSITORY, many)
    await parts.run("v1")
    parts.clock.advance(GRACE_SECONDS + 1)
    assert await collection.collect() == len(many)
    assert await kept(parts, ONE) == [True]
    assert len(await parts.manifests.some((HOST, REPOSITORY), [*many, *digests_of(ONE)])) == 3


async def test_it_is_done_once_a_day_whatever_happens(
    parts: Importing, collection: ManifestCollection, tmp_path: Path
) -> None:
    await parts.run("v1")
    await parts.artifacts.withdraw("dev", "app", "v1", actor="op")
    task = asyncio.create_task(collection.run())
    try:
        with closing(sqlite3.connect(tmp_path / "facade.db", isolation_level=None)) as database:
            database.execute("ALTER TABLE closure_manifests RENAME TO aside")
            with capture_logs() as logs:
                await parts.clock.wait_for_sleepers()
                parts.clock.advance(EVERY_SECONDS)
                await parts.clock.wait_for_sleepers()
            assert [entry["event"] for entry in logs] == ["manifests_not_collected"]
            database.execute("ALTER TABLE aside RENAME TO closure_manifests")
        parts.clock.advance(EVERY_SECONDS)
        await parts.clock.wait_for_sleepers()
        assert await kept(parts, ONE) == [False]
    finally:
        task.cancel()
