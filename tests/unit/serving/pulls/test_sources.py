"""Sources: slots per connection, removed connections, reports."""

import asyncio

import pytest

from facade.errors import Denied, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.serving.pulls.admission import Slots, upstream_overloaded
from facade.serving.pulls.reports import Reports
from facade.serving.pulls.sources import Sources
from facade.wings import ConnectionUsed
from tests.support.basin import KeepingBasin, poured
from tests.support.clock import FakeClock, settle
from tests.support.serving import FakeControl, FakeRegistryClient, a_connection

REPOSITORY = Repository("org/app")


class Bench:
    def __init__(self, limit: int = 2) -> None:
        self.clock = FakeClock()
        self.connection = a_connection()
        self.control = FakeControl(self.connection)
        self.client = FakeRegistryClient()
        self.slots: Slots[str] = Slots(
            limit, wait_seconds=30, clock=self.clock, refusal=upstream_overloaded
        )
        self.sources = Sources(
            upstream=self.client,
            control=self.control,
            slots=self.slots,
            reports=Reports(control=self.control, clock=self.clock),
        )
        self.digest = self.client.hold(REPOSITORY, b"content")

    async def fetch(self) -> bytes:
        source = self.sources.blob(self.connection, REPOSITORY, self.digest)
        async with source.open(0, None) as body:
            return await poured(body)


async def test_a_blob_comes_through_and_its_use_is_reported() -> None:
    bench = Bench()
    assert await bench.fetch() == b"content"
    assert bench.control.events == [ConnectionUsed("c1", bench.clock.time())]
    assert bench.slots.keys == 0


async def test_a_removed_connection_is_not_spoken_to() -> None:
    bench = Bench()
    bench.control.disconnect(RegistryHost("ghcr.io"))
    with pytest.raises(Denied) as refusal:
        await bench.fetch()
    assert refusal.value.reason is Reason.HOST_NOT_CONNECTED
    assert bench.client.asked == []
    assert bench.slots.keys == 0
    assert bench.control.events == []


class RemovingBasin(KeepingBasin):
    """Takes three bytes at a time; between the first two pieces the connection goes."""

    def __init__(self, control: FakeControl) -> None:
        super().__init__(space=3, every=3)
        self._control = control

    async def make_space(self) -> None:
        self._control.disconnect(RegistryHost("ghcr.io"))
        await super().make_space()


async def test_a_connection_that_is_removed_meanwhile_brings_not_a_byte_more() -> None:
    bench = Bench()
    source = bench.sources.blob(bench.connection, REPOSITORY, bench.digest)
    basin = RemovingBasin(bench.control)

    async def pour() -> None:
        async with source.open(0, None) as body:
            await body.pour(basin)

    with pytest.raises(Denied) as refusal:
        await pour()
    assert refusal.value.reason is Reason.HOST_NOT_CONNECTED
    assert basin.data == b"con"


async def test_a_host_connected_anew_is_another_connection() -> None:
    bench = Bench()
    bench.control.connect(a_connection(connection_id="c2"))
    with pytest.raises(Denied):
        await bench.fetch()


async def test_transfers_beyond_the_limit_wait_and_then_are_refused() -> None:
    bench = Bench(limit=1)
    source = bench.sources.blob(bench.connection, REPOSITORY, bench.digest)
    async with source.open(0, None):
        waiter = asyncio.create_task(bench.fetch())
        await settle()
        await bench.clock.run_for(31)
        with pytest.raises(Unavailable) as refusal:
            await waiter
    assert refusal.value.reason is Reason.OVERLOADED
    assert await bench.fetch() == b"content"


async def test_a_transfer_that_breaks_gives_its_slot_back() -> None:
    bench = Bench(limit=1)
    bench.client.failures.append(Upstream("down", reason=Reason.UPSTREAM_UNREACHABLE))
    with pytest.raises(Upstream):
        await bench.fetch()
    assert bench.slots.keys == 0
    assert bench.control.events == [ConnectionUsed("c1", bench.clock.time(), "down")]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Upstream("broke off", reason=Reason.UPSTREAM_UNREACHABLE), ["broke off"]),
        (OSError("the disk is full"), []),
        (asyncio.CancelledError(), []),
    ],
)
async def test_a_body_that_is_left_gives_its_slot_back(
    error: BaseException, told: list[str]
) -> None:
    bench = Bench(limit=1)

    async def leave() -> None:
        async with bench.sources.blob(bench.connection, REPOSITORY, bench.digest).open(0, None):
            raise error

    with pytest.raises(type(error)):
        await leave()
    assert bench.slots.keys == 0
    now = bench.clock.time()
    assert bench.control.events == [ConnectionUsed("c1", now, why) for why in told]


async def test_confirming_asks_for_the_size_only() -> None:
    bench = Bench()
    source = bench.sources.blob(bench.connection, REPOSITORY, bench.digest)
    assert await source.confirm() == 7
    assert bench.client.asked == ["head"]
    missing = bench.sources.blob(bench.connection, REPOSITORY, Digest.of(b"?"))
    assert await missing.confirm() is None


async def test_a_manifest_is_a_body_in_one_piece() -> None:
    bench = Bench()
    source = bench.sources.manifest(bench.connection, REPOSITORY, bench.digest)
    async with source.open(3, '"etag"') as body:
        assert (body.offset, body.total, body.etag) == (0, 7, None)
        assert await poured(body) == b"content"
    assert await source.confirm() == 7
    missing = bench.sources.manifest(bench.connection, REPOSITORY, Digest.of(b"?"))
    assert await missing.confirm() is None
    bench.client.failures.append(Upstream("down", reason=Reason.UPSTREAM_UNREACHABLE))
    with pytest.raises(Upstream):
        await source.confirm()


async def test_devices_take_turns_and_one_may_advance_what_another_queued() -> None:
    bench = Bench(limit=1)
    digests = [bench.client.hold(REPOSITORY, f"content {n}".encode()) for n in range(4)]
    order: list[Digest] = []

    async def fetch(digest: Digest, asker: str) -> None:
        source = bench.sources.blob(bench.connection, REPOSITORY, digest, asker)
        async with source.open(0, None):
            order.append(digest)
            await asyncio.sleep(0)

    async with bench.sources.using(bench.connection):
        queued = [asyncio.create_task(fetch(digest, "greedy")) for digest in digests]
        await settle()
        bench.sources.wanted(bench.connection, REPOSITORY, digests[3], "modest")
    await asyncio.gather(*queued)
    assert order == [digests[0], digests[3], digests[1], digests[2]]
