"""What the local store does beyond the contract: layout, open files, quarantine, partials."""

import asyncio
import os
import resource
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facade.errors import Invalid, Unavailable
from facade.oci.digest import Digest
from facade.oci.reference import Repository
from facade.serving.blobs.layout import reserve
from facade.serving.blobs.local import MAX_IDLE_OBJECTS, LocalStore
from facade.serving.blobs.port import BlobKey
from facade.serving.blobs.quarantine import MAX_QUARANTINED
from tests.support.blobs import (
    HOST,
    REPOSITORY,
    allocated,
    key_of,
    make_content,
    make_executor,
)
from tests.support.small_disk import small_disk

CONTENT = make_content(1000)
KEY = key_of(CONTENT)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    with make_executor() as executor:
        store = LocalStore.at(tmp_path, executor)
        yield store
        store.close()


async def publish(store: LocalStore, content: bytes = CONTENT) -> Digest:
    key = key_of(content)
    ingest = await store.ingest(key, len(content), lambda _: None)
    ingest.write(memoryview(content))
    ingest.publish()
    await ingest.close(keep=False)
    return key.digest


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def open_files(root: Path) -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += entry.readlink().is_relative_to(root)
        except FileNotFoundError:
            continue
    return count


LARGE = make_content(1 << 20)


def only(root: Path, pattern: str) -> Path:
    """The one file of that name under `root`."""
    (path,) = root.rglob(pattern)
    return path


async def test_room_for_a_large_one_is_set_aside_at_once(store: LocalStore, tmp_path: Path) -> None:
    ingest = await store.ingest(key_of(LARGE), len(LARGE), lambda _: None)
    ingest.write(memoryview(LARGE)[:1000])
    path = only(tmp_path, "*.partial")
    assert allocated(path) >= len(LARGE)
    assert path.stat().st_size == 1000  # what is there, as the next one finds it
    ingest.restart()
    assert allocated(path) == 0
    ingest.write(memoryview(LARGE)[:1000])
    assert allocated(path) >= len(LARGE)
    await ingest.close(keep=True)
    assert allocated(path) <= 8192
    assert path.stat().st_size == 1000


async def test_what_a_dead_writer_had_set_aside_is_given_back_though_nothing_more_came(
    store: LocalStore, tmp_path: Path
) -> None:
    key = key_of(LARGE)
    (await store.ingest(key, len(LARGE), lambda _: None)).abandon()
    path = only(tmp_path, "*.partial")
    with path.open("r+b") as left:
        left.write(LARGE[:1000])
        reserve(left.fileno(), len(LARGE))
    assert allocated(path) >= len(LARGE)
    ingest = await store.ingest(key, len(LARGE), lambda _: None)
    await ingest.close(keep=True)
    assert allocated(path) <= 8192
    assert path.read_bytes() == LARGE[:1000]
    os.utime(path, (1, 1))
    await (await store.ingest(key, len(LARGE), lambda _: None)).close(keep=True)
    assert path.stat().st_mtime == 1  # nothing to give back: it was last written when it was


async def test_what_was_set_aside_is_given_back_when_a_write_fails_though_it_is_still_read(
    store: LocalStore, tmp_path: Path
) -> None:
    ingest = await store.ingest(key_of(LARGE), len(LARGE), lambda _: None)
    ingest.write(memoryview(LARGE)[:1000])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with only(tmp_path, "*.partial").open("rb") as read:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
        try:
            with pytest.raises(Unavailable):
                ingest.write(memoryview(LARGE)[1000:2000])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.fstat(read.fileno()).st_blocks * 512 <= 8192
        assert read.read()[:1000] == LARGE[:1000]
    await ingest.close(keep=False)


async def test_what_another_process_set_aside_counts_as_what_it_writes(
    store: LocalStore, tmp_path: Path
) -> None:
    """Blocks are no reason to refuse what fits to the byte."""
    odd = make_content(len(LARGE) + 1)
    ingest = await store.ingest(key_of(odd), len(odd), lambda _: None)
    ingest.write(memoryview(odd)[:1000])
    with make_executor() as executor:
        other = LocalStore.at(tmp_path, executor)
        other.limit(len(odd) + len(LARGE), lambda _: None)
        fits = await other.ingest(key_of(LARGE), len(LARGE), lambda _: None)
        await fits.close(keep=False)
        other.close()
    await ingest.close(keep=False)


async def test_a_nearly_full_disk_is_not_set_aside_for_one(tmp_path: Path) -> None:
    """What comes in hours is no reason why others cannot write now."""
    with small_disk(tmp_path / "disk", 32 << 20) as disk, make_executor() as executor:
        store = LocalStore.at(disk.folder, executor)
        allowed, refused = (24 << 20), (30 << 20)
        for size, took in ((refused, False), (refused * 2, False), (allowed, True)):
            free = disk.free
            ingest = await store.ingest(key_of(LARGE), size, lambda _: None)
            ingest.write(memoryview(LARGE))
            assert (free - disk.free > 2 * len(LARGE)) is took
            (disk.folder / "others").write_bytes(bytes(3 << 20))
            (disk.folder / "others").unlink()
            await ingest.close(keep=False)
        store.close()


async def test_what_was_set_aside_is_the_contents_own(store: LocalStore, tmp_path: Path) -> None:
    digest = await publish(store, LARGE)
    path = only(tmp_path, digest.hex)
    assert path.read_bytes() == LARGE
    assert allocated(path) <= len(LARGE) + 8192


async def test_for_a_small_one_nothing_is_set_aside(store: LocalStore, tmp_path: Path) -> None:
    small = make_content(100_000)
    ingest = await store.ingest(key_of(small), len(small), lambda _: None)
    ingest.write(memoryview(small)[:10])
    path = only(tmp_path, "*.partial")
    assert allocated(path) <= 4096
    await ingest.close(keep=False)


def test_where_no_room_can_be_set_aside_nothing_is_lost() -> None:
    ends = os.pipe()  # no file system's
    reserve(ends[1], 1 << 20)
    with Path(os.devnull).open("r+b") as nowhere:
        reserve(nowhere.fileno(), 1 << 20)
    for end in ends:
        os.close(end)


async def test_a_disk_without_room_for_all_of_it_takes_what_it_can(store: LocalStore) -> None:
    """A hint, not a demand: eviction makes room meanwhile, or a write says so."""
    key = key_of(CONTENT)
    impossible = 1 << 60
    ingest = await store.ingest(key, impossible, lambda _: None)
    ingest.write(memoryview(CONTENT))
    assert ingest.have == len(CONTENT)
    await ingest.close(keep=False)


@pytest.mark.parametrize("attributes", [True, False])
async def test_the_layout_is_as_designed(tmp_path: Path, attributes: bool) -> None:
    long_key = key_of(CONTENT, "sha512")
    with make_executor() as executor:
        store = LocalStore.at(tmp_path, executor, attributes=attributes)
        await publish(store)
        await leave_half(store, long_key)
        store.close()
    hexes = KEY.digest.hex
    (partial,) = (tmp_path / "ingest").iterdir()
    beside = [] if attributes else [f"blobs/sha256/{hexes[:2]}/{hexes}.tags"]
    assert names(tmp_path) == {
        "node.key",
        f"blobs/sha256/{hexes[:2]}/{hexes}",
        *beside,
        str(partial.relative_to(tmp_path)),
    }
    assert partial.name.startswith(f"sha512-{long_key.digest.hex}.")
    assert partial.suffix == ".partial"


@pytest.mark.parametrize("formerly", [True, False])
async def test_block_tags_are_found_wherever_they_were_put(tmp_path: Path, formerly: bool) -> None:
    """A store that was filled where, or when, there were no attributes, and the other way round."""
    with make_executor() as executor:
        former = LocalStore.at(tmp_path, executor, attributes=formerly)
        digest = await publish(former)
        former.close()
        store = LocalStore.at(tmp_path, executor, attributes=not formerly)
        reader = await store.open(digest)
        assert reader is not None
        assert reader.origin == str(HOST), "it was not hashed anew: that forgets where it came from"
        reader.close()
        store.close()


async def test_block_tags_of_a_large_object_lie_beside_it(
    tmp_path: Path, store: LocalStore
) -> None:
    content = make_content(8 * 1024 * 1024)
    digest = await publish(store, content)
    assert f"blobs/sha256/{digest.hex[:2]}/{digest.hex}.tags" in names(tmp_path)
    reader = await store.open(digest)
    assert reader is not None
    assert reader.origin == str(HOST)
    reader.close()


async def leave_half(store: LocalStore, long_key: BlobKey) -> None:
    ingest = await store.ingest(long_key, 1000, lambda _: None)
    ingest.write(memoryview(b"x"))
    await ingest.close(keep=True)


@pytest.mark.parametrize("keep", [True, False])
async def test_who_is_cancelled_while_closing_an_ingest_leaves_no_lock(
    tmp_path: Path, keep: bool
) -> None:
    with ThreadPoolExecutor(1) as executor:
        store = LocalStore.at(tmp_path, executor)
        ingest = await store.ingest(KEY, len(CONTENT), lambda _: None)
        ingest.write(memoryview(CONTENT[:9]))
        busy = threading.Event()
        executor.submit(busy.wait)  # the close cannot begin yet
        task = asyncio.create_task(ingest.close(keep=keep))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        busy.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        again = await store.ingest(KEY, len(CONTENT), lambda _: None)
        assert again.have == (9 if keep else 0)
        await again.close(keep=False)
        store.close()


async def test_nobody_else_can_look_into_it(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    with make_executor() as executor:
        store = LocalStore.at(root, executor)
        await publish(store)
        store.close()
    assert root.stat().st_mode & 0o777 == 0o700
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


async def test_each_repository_has_a_partial_of_its_own(tmp_path: Path, store: LocalStore) -> None:
    others = [
        BlobKey("c1", HOST, Repository.parse("org/other"), KEY.digest),
        BlobKey("c2", HOST, REPOSITORY, KEY.digest),
    ]
    ingests = [await store.ingest(key, 1000, lambda _: None) for key in [KEY, *others]]
    for ingest in ingests:
        ingest.write(memoryview(b"x"))
        await ingest.close(keep=True)
    assert len(list((tmp_path / "ingest").iterdir())) == 3


async def test_a_file_with_an_odd_name_is_no_object(tmp_path: Path, store: LocalStore) -> None:
    await publish(store)
    (tmp_path / "blobs" / "sha256" / "xx").mkdir()
    (tmp_path / "blobs" / "sha256" / "xx" / "notes.txt").write_text("x")
    assert list(store.objects()) == [(KEY.digest, 1000)]


async def test_few_objects_stay_open_when_nobody_reads_them(
    tmp_path: Path, store: LocalStore
) -> None:
    many = MAX_IDLE_OBJECTS + 20
    digests = [await publish(store, b"%d" % number) for number in range(many)]
    readers = await asyncio.gather(*(store.open(digest) for digest in digests))
    assert open_files(tmp_path) == many
    for number, reader in enumerate(readers):
        assert reader is not None
        assert bytes(await reader.read(0, 10)) == b"%d" % number
    for reader in readers:
        assert reader is not None
        reader.close()
    assert open_files(tmp_path) == MAX_IDLE_OBJECTS
    store.close()
    assert open_files(tmp_path) == 0


async def test_closing_the_store_leaves_readers_their_files(
    tmp_path: Path, store: LocalStore
) -> None:
    reader = await store.open(await publish(store))
    assert reader is not None
    store.close()
    assert bytes(await reader.read(0, 1000)) == CONTENT
    reader.close()
    assert open_files(tmp_path) == 0


@pytest.mark.parametrize("attributes", [True, False])
async def test_only_a_few_quarantined_objects_are_kept(tmp_path: Path, attributes: bool) -> None:
    with make_executor() as executor:
        store = LocalStore.at(tmp_path, executor, attributes=attributes)
        await set_more_aside_than_are_kept(tmp_path, store, 1 if attributes else 2)
        store.close()


async def set_more_aside_than_are_kept(tmp_path: Path, store: LocalStore, each: int) -> None:
    assert store.quarantined() == 0
    for number in range(MAX_QUARANTINED + 3):
        await store.quarantine(await publish(store, b"%d" % number))
    assert store.quarantined() == MAX_QUARANTINED
    kept = {path.name for path in (tmp_path / "quarantine").iterdir()}
    newest = Digest.of(b"%d" % (MAX_QUARANTINED + 2))
    assert {f"sha256-{newest.hex}", f"sha256-{newest.hex}.tags"} & kept == {
        f"sha256-{newest.hex}{suffix}" for suffix in ("", ".tags")[:each]
    }
    assert len(kept) == each * MAX_QUARANTINED


async def test_old_partials_are_swept_unless_somebody_writes_them(
    tmp_path: Path, store: LocalStore
) -> None:
    keys = [key_of(b"a"), key_of(b"b"), key_of(b"c")]
    for key in keys[:2]:
        ingest = await store.ingest(key, 10, lambda _: None)
        ingest.write(memoryview(b"x"))
        await ingest.close(keep=True)
    for path in (tmp_path / "ingest").iterdir():
        os.utime(path, (0, 0))
    fresh = await store.ingest(keys[2], 10, lambda _: None)
    fresh.write(memoryview(b"x"))
    await fresh.close(keep=True)
    busy = await store.ingest(keys[0], 10, lambda _: None)
    assert store.sweep_partials(older_than=1000.0) == 1
    assert len(list((tmp_path / "ingest").iterdir())) == 2
    assert busy.have == 1
    await busy.close(keep=False)


async def test_an_ingest_that_nobody_waits_for_any_more_frees_its_lock(
    store: LocalStore,
) -> None:
    task = asyncio.create_task(store.ingest(KEY, 1000, lambda _: None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await (await store.ingest(KEY, 1000, lambda _: None)).close(keep=False)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with make_executor() as executor, pytest.raises(Unavailable, match="cannot be used"):
        LocalStore.at(tmp_path / "file" / "cache", executor)


def test_a_shared_node_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_bytes(bytes(32))
    (tmp_path / "node.key").chmod(0o644)
    with make_executor() as executor, pytest.raises(Invalid):
        LocalStore.at(tmp_path, executor)


async def test_an_object_that_cannot_be_opened_is_not_there(
    tmp_path: Path, store: LocalStore
) -> None:
    path = tmp_path / "blobs" / "sha256" / KEY.digest.hex[:2] / KEY.digest.hex
    path.mkdir(parents=True)
    assert await store.open(KEY.digest) is None


async def test_an_ingest_that_fails_to_publish_says_so(tmp_path: Path, store: LocalStore) -> None:
    (tmp_path / "blobs" / "sha256").write_text("in the way")
    ingest = await store.ingest(KEY, 1000, lambda _: None)
    ingest.write(memoryview(CONTENT))
    with pytest.raises(Unavailable, match="cannot take it"):
        ingest.publish()
    await ingest.close(keep=False)
    assert list((tmp_path / "ingest").iterdir()) == []


async def test_whether_anything_can_be_written_is_told_in_the_systems_words(
    store: LocalStore, tmp_path: Path
) -> None:
    assert store.refuses() is None
    assert list((tmp_path / "ingest").iterdir()) == [], "trying leaves nothing"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limit[1]))
    try:
        assert store.refuses() == "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    (tmp_path / "ingest").rmdir()
    assert store.refuses() == "No such file or directory"


async def test_an_object_that_is_unfit_on_opening_is_told_of_once(
    store: LocalStore, tmp_path: Path
) -> None:
    told: list[tuple[Digest, str]] = []
    store.watch(lambda digest, why: told.append((digest, why)))
    digest = await publish(store)
    with (tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex).open("r+b") as file:
        file.truncate(10)
    assert await asyncio.gather(*(store.open(digest) for _ in range(3))) == [None] * 3
    assert await store.open(digest) is None
    assert [each for each, _ in told] == [digest]
