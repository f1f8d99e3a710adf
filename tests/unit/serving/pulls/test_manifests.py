"""Manifests: whose bytes they are, where they are looked for, one search at a time."""

import asyncio

import pytest

from facade.errors import Denied, Integrity, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.serving.pulls.admission import Slots, upstream_overloaded
from facade.serving.pulls.manifests import Manifests
from facade.serving.pulls.reports import Reports
from facade.serving.pulls.sources import Sources
from facade.wings import ConnectionUsed, IntegrityFailed
from tests.support.clock import FakeClock, settle
from tests.support.serving import FakeControl, FakeRegistryClient, MemoryBlobs, a_connection

GHCR = RegistryHost("ghcr.io")
REPOSITORY = Repository("org/app")
OTHER = Repository("org/private")
DATA = b'{"schemaVersion":2}'
DIGEST = Digest.of(DATA)


class Bench:
    def __init__(self, *, connected: bool = True, max_bytes: int = 1000) -> None:
        self.clock = FakeClock()
        self.control = FakeControl(*([a_connection()] if connected else []))
        self.client = FakeRegistryClient()
        self.blobs = MemoryBlobs()
        reports = Reports(control=self.control, clock=self.clock)
        slots: Slots[str] = Slots(1, wait_seconds=30, clock=self.clock, refusal=upstream_overloaded)
        self.sources = Sources(
            upstream=self.client, control=self.control, slots=slots, reports=reports
        )
        self.reports, self.max_bytes = reports, max_bytes
        self.manifests = self.over(self.blobs)

    def over(self, blobs: MemoryBlobs) -> Manifests:
        """With an empty memory."""
        return Manifests(
            control=self.control,
            blobs=blobs,
            sources=self.sources,
            reports=self.reports,
            max_bytes=self.max_bytes,
        )

    async def get(self, digest: Digest = DIGEST, size: int = len(DATA)) -> bytes:
        return await self.manifests.manifest(GHCR, REPOSITORY, digest, size)


async def test_the_copy_kept_at_import_needs_no_registry() -> None:
    bench = Bench(connected=False)
    bench.control.keep(GHCR, REPOSITORY, DATA)
    assert await bench.get() == DATA
    assert bench.client.asked == []


async def test_a_second_time_comes_from_memory() -> None:
    bench = Bench()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    await bench.get()
    await bench.get()
    assert len(bench.control.asked) == 1


async def test_the_registry_is_the_last_resort_and_what_it_gave_is_kept() -> None:
    bench = Bench()
    bench.client.hold(REPOSITORY, DATA)
    assert await bench.get() == DATA
    assert await bench.get() == DATA
    assert bench.client.asked == ["manifest"]
    assert bench.control.events == [ConnectionUsed("c1", bench.clock.time())]


async def test_memory_never_lends_a_manifest_to_another_repository() -> None:
    bench = Bench()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    await bench.get()
    with pytest.raises(Upstream):
        await bench.manifests.manifest(GHCR, OTHER, DIGEST, len(DATA))


async def test_a_wrong_copy_is_reported_and_never_given() -> None:
    bench = Bench()
    bench.control.manifests[GHCR, REPOSITORY, DIGEST] = b"something else"
    bench.client.hold(REPOSITORY, DATA)
    assert await bench.get() == DATA
    failure = next(e for e in bench.control.events if isinstance(e, IntegrityFailed))
    assert (failure.host, failure.repository, failure.digest) == (
        "ghcr.io",
        "org/app",
        str(DIGEST),
    )


async def test_wrong_bytes_of_the_registry_are_integrity() -> None:
    bench = Bench()
    bench.client.hold(REPOSITORY, b"x" * len(DATA), as_digest=DIGEST)
    with pytest.raises(Integrity):
        await bench.get()


async def test_a_registry_without_connection_is_not_contacted() -> None:
    bench = Bench(connected=False)
    with pytest.raises(Denied) as refusal:
        await bench.get()
    assert refusal.value.reason is Reason.HOST_NOT_CONNECTED
    assert bench.client.asked == []


async def test_what_is_missing_upstream_is_no_fault_of_the_connection() -> None:
    bench = Bench()
    with pytest.raises(Upstream) as missing:
        await bench.get()
    assert missing.value.reason is Reason.UPSTREAM_NOT_FOUND
    assert bench.control.events == [ConnectionUsed("c1", bench.clock.time())]


async def test_a_failing_registry_is_reported_with_its_words() -> None:
    bench = Bench()
    bench.client.failures.append(
        Upstream("ghcr.io does not answer.", reason=Reason.UPSTREAM_UNREACHABLE)
    )
    with pytest.raises(Upstream):
        await bench.get()
    assert bench.control.events == [
        ConnectionUsed("c1", bench.clock.time(), "ghcr.io does not answer.")
    ]


async def test_more_than_a_manifest_is_not_fetched() -> None:
    bench = Bench()
    with pytest.raises(Integrity):
        await bench.get(size=5 * 1024 * 1024)
    assert bench.client.asked == []


async def test_one_search_serves_all_and_outlives_who_leaves() -> None:
    bench = Bench()
    bench.control.gate = asyncio.Event()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    waiters = [asyncio.create_task(bench.get()) for _ in range(5)]
    await settle()
    waiters[0].cancel()
    await settle()
    bench.control.gate.set()
    assert await asyncio.gather(*waiters[1:]) == [DATA] * 4
    assert waiters[0].cancelled()
    assert len(bench.control.asked) == 1


async def test_a_failed_search_is_not_remembered() -> None:
    bench = Bench()
    with pytest.raises(Upstream):
        await bench.get()
    bench.client.hold(REPOSITORY, DATA)
    assert await bench.get() == DATA


async def test_memory_is_bounded_and_drops_the_longest_unused() -> None:
    documents = [b"%04d" % number + b"-" * 296 for number in range(4)]
    bench = Bench(max_bytes=900)
    for document in documents:
        bench.control.keep(GHCR, REPOSITORY, document)
        await bench.get(Digest.of(document), 300)
    await settle()
    bench.blobs.contents.clear()
    bench.control.asked.clear()
    await bench.get(Digest.of(documents[3]), 300)
    assert bench.control.asked == []
    await bench.get(Digest.of(documents[0]), 300)
    assert len(bench.control.asked) == 1


async def test_kept_never_asks_a_registry() -> None:
    bench = Bench()
    bench.client.hold(REPOSITORY, DATA)
    assert await bench.manifests.kept(GHCR, REPOSITORY, DIGEST) is None
    bench.control.keep(GHCR, REPOSITORY, DATA)
    for _ in range(2):
        assert await bench.manifests.kept(GHCR, REPOSITORY, DIGEST) == DATA
    assert bench.client.asked == []
    assert len(bench.control.asked) == 2


async def test_what_the_control_side_gave_is_kept_and_found_without_it() -> None:
    bench, other = Bench(), Bench()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    await bench.get()
    await settle()
    other.manifests = other.over(bench.blobs)  # another process of the node, with the same cache
    other.control.defect = Unavailable("away", reason=Reason.CONTROL_UNAVAILABLE)
    assert await other.get() == DATA
    assert await other.manifests.kept(GHCR, REPOSITORY, DIGEST) == DATA
    with pytest.raises(Unavailable):
        await other.manifests.kept(GHCR, OTHER, DIGEST)
    other.control.disconnect(GHCR)
    with pytest.raises(Unavailable):  # it belonged to a connection that is gone
        await other.over(bench.blobs).kept(GHCR, REPOSITORY, DIGEST)


async def test_a_wrong_copy_in_the_cache_is_reported_and_the_control_sides_is_given() -> None:
    bench = Bench()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    bench.blobs.contents["c1", REPOSITORY, DIGEST] = b"something else"
    assert await bench.get() == DATA
    failure = next(e for e in bench.control.events if isinstance(e, IntegrityFailed))
    assert failure.detail == "The cache's copy does not match its digest."


async def test_a_copy_that_the_cache_found_spoiled_is_had_from_the_control_side() -> None:
    bench = Bench()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    bench.blobs.spoiled = True
    assert await bench.get() == DATA


async def test_a_cache_that_cannot_keep_it_fails_no_pull() -> None:
    bench = Bench()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    bench.blobs.defect = RuntimeError("a defect")
    assert await bench.get() == DATA
    await bench.manifests.close()


async def test_the_end_waits_for_what_is_being_kept() -> None:
    bench = Bench()
    bench.control.keep(GHCR, REPOSITORY, DATA)
    await bench.get()
    await bench.manifests.close()
    assert bench.blobs.contents == {("c1", REPOSITORY, DIGEST): DATA}


async def test_close_ends_what_is_being_searched_for() -> None:
    bench = Bench()
    bench.control.gate = asyncio.Event()
    waiter = asyncio.create_task(bench.get())
    await settle()
    await bench.manifests.close()
    with pytest.raises(asyncio.CancelledError):
        await waiter
