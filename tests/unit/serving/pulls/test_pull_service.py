"""The use cases: order of decisions, laziness, referrers, TUF targets."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from facade.errors import Denied, Integrity, NotFound, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST, Descriptor
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.pulls.admission import Slots, upstream_overloaded
from facade.serving.pulls.answers import ReadyBlob
from facade.serving.pulls.manifests import Manifests
from facade.serving.pulls.rates import DeviceRates, Rates
from facade.serving.pulls.reports import Reports
from facade.serving.pulls.service import BLOB_MEDIA_TYPE, PullService, device_key
from facade.serving.pulls.sources import Sources
from facade.serving.trust.closure import Allowed
from facade.target import SignedTarget
from tests.support.clock import FakeClock
from tests.support.serving import (
    FakeControl,
    FakeRegistryClient,
    MemoryBlobs,
    a_connection,
    a_device,
)

GHCR = RegistryHost("ghcr.io")
REPOSITORY = Repository("org/app")
LAYER = b"a layer"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "x/config", "digest": str(Digest.of(b"{}")), "size": 2},
        "layers": [{"mediaType": "x/layer", "digest": str(Digest.of(LAYER)), "size": len(LAYER)}],
    }
).encode()
TARGET = SignedTarget(
    "dev", "app", "v1", Digest.of(MANIFEST), len(MANIFEST), GHCR, REPOSITORY, OCI_MANIFEST
)


def allowed(role: Role, data: bytes, media_type: str, *sizes: int) -> Allowed:
    sizes = sizes or (len(data),)
    return Allowed(Digest.of(data), sizes[0], media_type, role, TARGET, sizes)


class SignedBefore:
    """Implements the authorisation port over a list."""

    def __init__(self, *decisions: Allowed) -> None:
        self.decisions = {(each.role, each.digest): each for each in decisions}
        self.failure: Exception | None = None
        self.referring: tuple[Descriptor, ...] = ()
        self.learned: list[bytes] = []
        self.meanwhile: Callable[[], None] = lambda: None
        """Happens while signed referrers are read."""

    async def decide(self, fleet: str, request: PullRequest, /) -> Allowed:
        return self.decide_now(fleet, request)

    def decide_now(self, fleet: str, request: PullRequest, /) -> Allowed:
        if self.failure is not None:
            raise self.failure
        role = Role.MANIFEST if request.role is Role.REFERRERS else request.role
        found = self.decisions.get((role, request.digest))
        if fleet != "dev" or found is None:
            raise Denied("not signed", reason=Reason.NOT_SIGNED)
        return found

    async def referrers(self, fleet: str, request: PullRequest, /) -> tuple[Descriptor, ...]:
        await self.decide(fleet, request)
        self.meanwhile()
        return self.referring

    async def target(self, fleet: str, path: str, /) -> SignedTarget | None:
        if fleet != "dev":
            raise Denied("nobody delegated", reason=Reason.NOT_SIGNED)
        return TARGET if path == TARGET.path else None

    def learn(self, fleet: str, request: PullRequest, data: bytes, /) -> None:
        self.learned.append(data)


class Bench:
    def __init__(self, *decisions: Allowed, connected: bool = True) -> None:
        clock = FakeClock()
        self.control = FakeControl(*([a_connection()] if connected else []))
        self.client, self.blobs = FakeRegistryClient(), MemoryBlobs()
        self.client.hold(REPOSITORY, LAYER)
        self.client.hold(REPOSITORY, MANIFEST)
        reports = Reports(control=self.control, clock=clock)

        def slots() -> Slots[tuple[str, str]]:
            return Slots(8, wait_seconds=30, clock=clock, refusal=upstream_overloaded)

        transfers: Slots[str] = Slots(8, wait_seconds=30, clock=clock, refusal=upstream_overloaded)
        sources = Sources(
            upstream=self.client, control=self.control, slots=transfers, reports=reports
        )
        self.signed = SignedBefore(
            *decisions,
            allowed(Role.MANIFEST, MANIFEST, OCI_MANIFEST),
            allowed(Role.BLOB, LAYER, "x/layer"),
        )
        self.pulls = PullService(
            authorisation=self.signed,
            control=self.control,
            manifests=Manifests(
                control=self.control, blobs=self.blobs, sources=sources, reports=reports
            ),
            blobs=self.blobs,
            sources=sources,
            requests=slots(),
            streams=slots(),
        )


def request(role: Role, data: bytes) -> PullRequest:
    return PullRequest(role, GHCR, REPOSITORY, Digest.of(data))


async def test_a_manifest_has_its_descriptors_type_and_size_before_anything_is_fetched() -> None:
    bench = Bench()
    answer = await bench.pulls.manifest(a_device(), request(Role.MANIFEST, MANIFEST))
    assert (answer.size, answer.media_type) == (len(MANIFEST), OCI_MANIFEST)
    assert bench.client.asked == []
    assert await answer.read() == MANIFEST


async def test_the_walk_learns_from_what_is_served_once() -> None:
    bench = Bench()
    answer = await bench.pulls.manifest(a_device(), request(Role.MANIFEST, MANIFEST))
    await answer.read()
    await answer.read()
    assert bench.signed.learned == [MANIFEST]


async def test_a_manifest_of_another_type_than_signed_is_not_served() -> None:
    bench = Bench(allowed(Role.MANIFEST, MANIFEST, OCI_INDEX))
    bench.signed.decisions[Role.MANIFEST, Digest.of(MANIFEST)] = allowed(
        Role.MANIFEST, MANIFEST, OCI_INDEX
    )
    answer = await bench.pulls.manifest(a_device(), request(Role.MANIFEST, MANIFEST))
    with pytest.raises(Integrity):
        await answer.read()


async def test_a_blob_is_opened_only_when_asked_for() -> None:
    bench = Bench()
    answer = await bench.pulls.blob(a_device(), request(Role.BLOB, LAYER))
    assert (answer.size, answer.media_type) == (len(LAYER), BLOB_MEDIA_TYPE)
    assert bench.client.asked == []
    stream = await answer.open()
    assert b"".join([bytes(chunk) async for chunk in stream.chunks()]) == LAYER


@pytest.mark.parametrize("connected", [True, False])
async def test_unsigned_is_decided_before_whether_the_host_is_connected(*, connected: bool) -> None:
    bench = Bench(connected=connected)
    for call in (bench.pulls.manifest, bench.pulls.blob):
        with pytest.raises(Denied) as refusal:
            await call(a_device(), request(Role.MANIFEST, b"unknown"))
        assert refusal.value.reason is Reason.NOT_SIGNED
    assert bench.client.asked == []


async def test_signed_but_not_connected_is_told_so_although_it_may_be_cached() -> None:
    bench = Bench()
    answer = await bench.pulls.blob(a_device(), request(Role.BLOB, LAYER))
    await (await answer.open()).aclose()
    bench.control.disconnect(GHCR)
    calls: list[Callable[..., object]] = [bench.pulls.blob, bench.pulls.judge]
    for call in calls:
        with pytest.raises(Denied) as refusal:
            await call(a_device(), request(Role.BLOB, LAYER))  # type: ignore[misc]
        assert refusal.value.reason is Reason.HOST_NOT_CONNECTED


async def test_undecided_is_passed_on_as_it_is() -> None:
    bench = Bench()
    bench.signed.failure = Unavailable("expired", reason=Reason.METADATA_EXPIRED)
    with pytest.raises(Unavailable):
        await bench.pulls.manifest(a_device(), request(Role.MANIFEST, MANIFEST))


async def test_where_descriptors_disagree_the_registry_knows_a_blobs_size() -> None:
    bench = Bench()
    lying = allowed(Role.BLOB, LAYER, "x/layer", 3, len(LAYER))
    bench.signed.decisions[Role.BLOB, lying.digest] = lying
    answer = await bench.pulls.blob(a_device(), request(Role.BLOB, LAYER))
    assert answer.size == len(LAYER)
    bench.client.content.clear()
    assert (await bench.pulls.blob(a_device(), request(Role.BLOB, LAYER))).size == 3


async def test_where_descriptors_disagree_the_bytes_know_a_manifests_size() -> None:
    bench = Bench()
    bench.control.keep(GHCR, REPOSITORY, MANIFEST)
    lying = allowed(Role.MANIFEST, MANIFEST, OCI_MANIFEST, 3, len(MANIFEST))
    bench.signed.decisions[Role.MANIFEST, lying.digest] = lying
    answer = await bench.pulls.manifest(a_device(), request(Role.MANIFEST, MANIFEST))
    assert answer.size == len(MANIFEST)
    assert await answer.read() == MANIFEST


async def test_a_tuf_target_is_its_manifest() -> None:
    bench = Bench()
    answer = await bench.pulls.target(a_device(), "dev/app/v1", Digest.of(MANIFEST))
    assert await answer.read() == MANIFEST


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("dev/app/v2", MANIFEST),
        ("dev/app/v1", LAYER),
        ("other/app/v1", MANIFEST),
        ("dev/app", MANIFEST),
        ("dev/../v1", MANIFEST),
        ("", MANIFEST),
    ],
)
async def test_what_is_no_target_of_ours_is_one_and_the_same_answer(path: str, data: bytes) -> None:
    with pytest.raises(NotFound) as refusal:
        await Bench().pulls.target(a_device(), path, Digest.of(data))
    assert refusal.value.message == "There is no such target."


async def test_a_fleet_that_nobody_delegated_to_has_no_targets() -> None:
    with pytest.raises(NotFound):
        await Bench().pulls.target(a_device("ghosts"), "ghosts/app/v1", Digest.of(MANIFEST))


async def test_referrers_of_an_image_withdrawn_while_they_were_read_are_not_listed() -> None:
    bench = Bench()
    bench.signed.meanwhile = bench.signed.decisions.clear
    with pytest.raises(Denied) as caught:
        await bench.pulls.referrers(a_device(), request(Role.REFERRERS, MANIFEST))
    assert caught.value.reason is Reason.NOT_SIGNED


async def test_a_running_stream_ends_with_its_connection_whatever_else_is_unknown() -> None:
    bench = Bench(connected=False)
    bench.signed.failure = Unavailable("expired", reason=Reason.METADATA_EXPIRED)
    wanted = request(Role.BLOB, LAYER)
    with pytest.raises(Denied) as caught:
        await bench.pulls.judge_running(a_device(), wanted)
    assert caught.value.reason is Reason.HOST_NOT_CONNECTED
    with pytest.raises(Unavailable):  # a new request learns that first
        await bench.pulls.judge(a_device(), wanted)


async def test_referrers_are_an_index_and_can_be_filtered() -> None:
    bench = Bench()
    bench.signed.referring = (
        Descriptor(
            OCI_MANIFEST,
            Digest.of(b"sig"),
            3,
            annotations={"k": "v"},
            artifact_type="application/vnd.sig",
        ),
        Descriptor(OCI_MANIFEST, Digest.of(b"sbom"), 4),
    )
    wanted = request(Role.REFERRERS, MANIFEST)
    whole = await bench.pulls.referrers(a_device(), wanted)
    index = json.loads(whole.data)
    assert (whole.media_type, index["mediaType"], whole.filtered) == (OCI_INDEX, OCI_INDEX, False)
    assert index["manifests"][0] == {
        "mediaType": OCI_MANIFEST,
        "digest": str(Digest.of(b"sig")),
        "size": 3,
        "artifactType": "application/vnd.sig",
        "annotations": {"k": "v"},
    }
    assert "artifactType" not in index["manifests"][1]
    some = await bench.pulls.referrers(a_device(), wanted, artifact_type="application/vnd.sig")
    assert some.filtered
    assert len(json.loads(some.data)["manifests"]) == 1
    bench.control.disconnect(GHCR)
    with pytest.raises(Denied):
        await bench.pulls.referrers(a_device(), wanted)


def test_slots_belong_to_the_device_not_to_its_certificate() -> None:
    renewed = replace(a_device(), serial="2b", fingerprint="cd" * 32)
    assert device_key(renewed) == device_key(a_device())


def test_the_generation_changes_with_the_view_and_with_the_control_side() -> None:
    bench, view = Bench(), [1]
    generation = bench.pulls.generation(lambda: view[0])
    seen = {generation()}
    view[0] = 2
    seen.add(generation())
    bench.control.restore()
    seen.add(generation())
    assert len(seen) == 3


async def filled(bench: Bench) -> Bench:
    answer = await bench.pulls.blob(a_device(), request(Role.BLOB, LAYER))
    await (await answer.open()).aclose()
    return bench


def ready(bench: Bench, fleet: str = "dev") -> ReadyBlob | None:
    return bench.pulls.ready_blob(a_device(fleet), request(Role.BLOB, LAYER))


async def test_a_blob_at_hand_is_ready_under_the_same_decision() -> None:
    bench = await filled(Bench())
    found = ready(bench)
    assert found is not None
    assert (found.media_type, found.stream.size) == (BLOB_MEDIA_TYPE, len(LAYER))
    with pytest.raises(Denied):
        ready(bench, "other")
    bench.control.disconnect(GHCR)
    with pytest.raises(Denied) as refused:
        ready(bench)
    assert refused.value.reason is Reason.HOST_NOT_CONNECTED


async def test_a_blob_is_not_ready_when_anything_has_to_be_waited_for() -> None:
    assert ready(Bench()) is None  # its bytes
    bench = await filled(Bench(allowed(Role.BLOB, LAYER, "x/layer", len(LAYER), 1)))
    bench.signed.decisions[Role.BLOB, Digest.of(LAYER)] = allowed(
        Role.BLOB, LAYER, "x/layer", len(LAYER), 1
    )
    assert ready(bench) is None  # its size
    for kind in ("requests", "streams"):
        bench = await filled(Bench())
        slots: Slots[tuple[str, str]] = getattr(bench.pulls, kind)
        for _ in range(8):
            await slots.acquire(device_key(a_device()))
        assert ready(bench) is None  # a slot
        slots.release(device_key(a_device()))
        assert ready(bench) is not None
    bench.pulls.rates = DeviceRates(
        Rates(bytes_per_second=1e9), wait_seconds=1, clock=FakeClock(), observer=NoObserver()
    )
    assert ready(bench) is None  # its turn, perhaps


class NoObserver:
    """Counts nothing."""

    def rate_waited(self, limit: str) -> None:
        """Ignore it."""
