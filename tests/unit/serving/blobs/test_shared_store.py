"""Two stores on one folder, as two processes have them: what one reads, removes or sets aside, the
other respects or notices."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.serving.blobs.local import LocalStore
from facade.serving.blobs.opened import LocalReader
from tests.support.blobs import key_of, make_content, make_executor

CONTENT = make_content(1000)
KEY = key_of(CONTENT)
DIGEST = KEY.digest


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[LocalStore, LocalStore]]:
    with make_executor() as executor:
        one, other = LocalStore.at(tmp_path, executor), LocalStore.at(tmp_path, executor)
        yield one, other
        one.close()
        other.close()


async def publish(store: LocalStore) -> None:
    ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
    ingest.write(memoryview(CONTENT))
    ingest.publish()
    await ingest.close(keep=False)


async def opened(store: LocalStore) -> LocalReader:
    reader = await store.open(DIGEST)
    assert reader is not None
    return reader


async def test_what_one_reads_the_other_does_not_remove(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    first, second = await opened(one), await opened(one)
    first.close()
    assert await other.remove(DIGEST) is None
    assert bytes(await second.read(0, 1000)) == CONTENT
    second.close()  # it stays open, idle
    assert await other.remove(DIGEST) == len(CONTENT)
    assert await one.open(DIGEST) is None


async def test_a_reader_that_comes_back_to_an_idle_object_is_respected(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    (await opened(one)).close()
    reader = await opened(one)
    assert await other.remove(DIGEST) is None
    reader.close()


async def test_what_one_set_aside_the_other_does_not_serve(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    (await opened(other)).close()
    await one.quarantine(DIGEST)
    assert await other.open(DIGEST) is None


async def test_a_fresh_object_is_not_set_aside_for_the_faults_of_the_former(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    await publish(one)
    former = await opened(other)
    await one.quarantine(DIGEST)
    await publish(one)
    await other.quarantine(DIGEST)
    former.close()
    reader = await opened(other)
    assert bytes(await reader.read(0, 1000)) == CONTENT
    reader.close()


async def test_what_both_have_under_way_counts_against_one_bound(
    stores: tuple[LocalStore, LocalStore],
) -> None:
    one, other = stores
    first = await one.ingest(KEY, 1_000_000, lambda _: None)
    assert other.partials.count() == 1_000_000
    second = await other.ingest(key_of(b"other"), 5, lambda _: None)
    assert one.partials.count() == 1_000_005
    first.write(memoryview(CONTENT))
    assert one.sweep_partials(older_than=4e9) == 0
    assert other.sweep_partials(older_than=4e9) == 0
    await first.close(keep=True)
    assert other.partials.count() == len(CONTENT) + 5
    await second.close(keep=False)
