"""Decisions: what is remembered, what is shared, what is bounded."""

import asyncio
import time
from dataclasses import replace

import pytest

from facade.errors import Denied, Unavailable
from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from facade.oci.request import Role
from facade.reasons import Reason
from facade.serving.trust.decision import MAX_FETCHED, Authorisation
from facade.serving.trust.walk import HOLE_SECONDS
from facade.target import SignedTarget
from tests.support.clock import FakeClock, settle
from tests.support.manifests import PlainImage, descriptor, image_manifest
from tests.support.trust import ManifestPile, ShownViews, request_for, view_of
from tests.support.tuf_repo import signed_target

APP = PlainImage("app")
LAYER = APP.layers("linux/arm64")[1]
CHILD = APP.manifests["linux/arm64"]
UNSIGNED = request_for(b"signed by nobody", Role.BLOB)


def target(image: PlainImage, version: str = "v1") -> SignedTarget:
    return signed_target(f"dev/app/{version}", image.index, media_type=OCI_INDEX)


class Setup:
    def __init__(self, *targets: SignedTarget) -> None:
        self.clock = FakeClock()
        self.views = ShownViews(view_of(*(targets or (target(APP),))))
        self.pile = ManifestPile()
        self.pile.put(*APP.every_manifest)
        self.authorisation = Authorisation(views=self.views, manifests=self.pile, clock=self.clock)

    async def reason(self, request: object = UNSIGNED, fleet: str = "dev") -> Reason | None:
        """Why it is not allowed; None = it is."""
        try:
            await self.authorisation.decide(fleet, request)  # type: ignore[arg-type]
        except (Denied, Unavailable) as error:
            return error.reason
        return None


@pytest.fixture
def setup() -> Setup:
    return Setup()


async def test_a_signed_target_is_allowed_without_reading_anything(setup: Setup) -> None:
    allowed = setup.authorisation.decide_now("dev", request_for(APP.index))
    assert allowed
    assert (allowed.size, allowed.media_type) == (len(APP.index), OCI_INDEX)
    assert allowed.target.path == "dev/app/v1"
    assert not setup.pile.requests


async def test_a_whole_pull_reads_each_manifest_once(setup: Setup) -> None:
    for data, role in [
        *((APP.index, Role.MANIFEST), (CHILD, Role.MANIFEST), (LAYER, Role.BLOB)),
        (APP.config("linux/arm64"), Role.BLOB),
    ]:
        allowed = await setup.authorisation.decide("dev", request_for(data, role))
        assert (allowed.size, allowed.role) == (len(data), role)
        assert setup.authorisation.decide_now("dev", request_for(data, role)) is allowed
    assert setup.pile.requests == [Digest.of(APP.index), Digest.of(CHILD)]


async def test_what_is_reached_grows_with_what_was_asked(setup: Setup) -> None:
    assert setup.authorisation.reached() == frozenset()
    await setup.authorisation.decide("dev", request_for(LAYER, Role.BLOB))
    reached = setup.authorisation.reached()
    assert {Digest.of(APP.index), Digest.of(CHILD), Digest.of(LAYER)} <= reached
    assert UNSIGNED.digest not in reached


async def test_what_was_served_need_not_be_read_again(setup: Setup) -> None:
    for data in (APP.index, CHILD):
        request = request_for(data)
        assert setup.authorisation.decide_now("dev", request)
        setup.authorisation.learn("dev", request, data)
    assert setup.authorisation.decide_now("dev", request_for(LAYER, Role.BLOB))
    assert not setup.pile.requests


async def test_bytes_that_were_not_asked_about_teach_nothing(setup: Setup) -> None:
    setup.authorisation.learn("dev", request_for(APP.index), APP.index)
    assert setup.authorisation.decide_now("dev", request_for(APP.index))
    setup.authorisation.learn("dev", request_for(APP.index), CHILD)
    assert await setup.reason(request_for(LAYER, Role.BLOB)) is Reason.CLOSURE_INCOMPLETE


async def test_a_no_is_remembered_whatever_is_asked(setup: Setup) -> None:
    assert await setup.reason() is Reason.NOT_SIGNED
    reads = len(setup.pile.requests)
    for n in range(50):
        with pytest.raises(Denied):
            setup.authorisation.decide_now("dev", request_for(b"%d" % n, Role.BLOB))
    assert len(setup.pile.requests) == reads == 3


async def test_a_repository_without_targets_is_refused_without_a_walk(setup: Setup) -> None:
    with pytest.raises(Denied):
        setup.authorisation.decide_now("dev", request_for(APP.index, place="ghcr.io/org/other"))
    assert not setup.pile.requests


async def test_freshness_is_checked_for_known_answers_too(setup: Setup) -> None:
    request = request_for(LAYER, Role.BLOB)
    await setup.authorisation.decide("dev", request)
    setup.views.shown = replace(
        setup.views.shown, expires={**setup.views.shown.expires, "timestamp": 5.0}
    )
    with pytest.raises(Unavailable) as caught:
        setup.authorisation.decide_now("dev", request)
    assert caught.value.reason is Reason.METADATA_EXPIRED
    setup.views.error = Unavailable("Back.", reason=Reason.CLOCK_SET_BACK)
    assert await setup.reason(request) is Reason.CLOCK_SET_BACK


async def test_a_fleet_is_loaded_when_its_device_asks(setup: Setup) -> None:
    full = setup.views.shown
    setup.views.shown = replace(full, fleets={})
    setup.views.loads["dev"] = full
    assert setup.authorisation.decide_now("dev", request_for(APP.index)) is None
    assert await setup.reason(request_for(APP.index)) is None
    assert setup.views.asked == ["dev"]


async def test_a_fleet_that_cannot_be_had_is_unavailable(setup: Setup) -> None:
    setup.views.shown = replace(setup.views.shown, fleets={})
    assert await setup.reason(request_for(APP.index)) is Reason.METADATA_UNAVAILABLE
    expired = Unavailable("The role of dev has expired.", reason=Reason.METADATA_EXPIRED)
    setup.views.shown = replace(setup.views.shown, failed={"dev": expired})
    assert await setup.reason(request_for(APP.index)) is Reason.METADATA_EXPIRED
    assert setup.views.asked == ["dev"]


async def test_an_unknown_fleet_is_not_signed(setup: Setup) -> None:
    assert await setup.reason(request_for(APP.index), fleet="nobody") is Reason.NOT_SIGNED
    assert not setup.views.asked


async def test_a_manifest_missing_upstream_does_not_block_the_others(setup: Setup) -> None:
    other = PlainImage("other")
    setup.views.shown = view_of(target(other, "v2"), target(APP, "v1"))
    assert await setup.reason(request_for(LAYER, Role.BLOB)) is None
    assert await setup.reason() is Reason.CLOSURE_INCOMPLETE
    with pytest.raises(Unavailable) as caught:
        setup.authorisation.decide_now("dev", UNSIGNED)
    assert caught.value.retry_after
    setup.pile.put(*other.every_manifest)
    setup.clock.advance(HOLE_SECONDS)
    assert await setup.reason() is Reason.NOT_SIGNED


async def test_one_request_makes_the_walk_fetch_a_bounded_number() -> None:
    images = [PlainImage(f"v{n}") for n in range(100)]
    setup = Setup(*(target(image, image.name) for image in images))
    for image in images:
        setup.pile.put(*image.every_manifest)
    outcomes = []
    for _ in range(5):
        before = len(setup.pile.requests)
        outcomes.append(await setup.reason())
        assert len(setup.pile.requests) - before <= MAX_FETCHED
    assert outcomes == [Reason.CLOSURE_INCOMPLETE] * 4 + [Reason.NOT_SIGNED]
    assert len(setup.pile.requests) == 300


async def test_kept_manifests_are_not_counted() -> None:
    images = [PlainImage(f"v{n}") for n in range(100)]
    setup = Setup(*(target(image, image.name) for image in images))
    kept = ManifestPile()
    for image in images:
        kept.put(*image.every_manifest)
    setup.authorisation = Authorisation(
        views=setup.views, manifests=setup.pile, clock=setup.clock, kept=kept.kept
    )
    assert await setup.reason() is Reason.NOT_SIGNED
    assert not setup.pile.requests


async def test_the_oldest_image_is_pulled_as_quickly_as_the_newest() -> None:
    images = [PlainImage(f"v{n}") for n in range(200)]
    setup = Setup(*(target(image, image.name) for image in images))
    for image in images:
        setup.pile.put(*image.every_manifest)
    oldest = images[0]
    for data, role in (
        (oldest.index, Role.MANIFEST),
        (oldest.manifests["linux/arm64"], Role.MANIFEST),
        (oldest.layers("linux/arm64")[1], Role.BLOB),
    ):
        assert await setup.reason(request_for(data, role)) is None
    assert len(setup.pile.requests) == 2


async def test_what_is_kept_but_broken_is_fetched(setup: Setup) -> None:
    kept = ManifestPile()
    kept.lie(Digest.of(APP.index), b"broken")
    kept.failing[Digest.of(CHILD)] = Unavailable("The control side is away.")
    setup.authorisation = Authorisation(
        views=setup.views, manifests=setup.pile, clock=setup.clock, kept=kept.kept
    )
    assert await setup.reason(request_for(LAYER, Role.BLOB)) is None
    assert Digest.of(CHILD) in setup.pile.requests


async def test_a_source_that_gives_other_bytes_leaves_a_hole(setup: Setup) -> None:
    setup.pile.lie(Digest.of(CHILD), CHILD + b" ")
    assert await setup.reason(request_for(LAYER, Role.BLOB)) is Reason.CLOSURE_INCOMPLETE


async def test_one_walk_serves_all_who_wait(setup: Setup) -> None:
    setup.pile.gate = asyncio.Event()
    requests = [request_for(LAYER, Role.BLOB), request_for(CHILD), UNSIGNED] * 20
    waiting = [asyncio.create_task(setup.reason(request)) for request in requests]
    await settle()
    setup.pile.gate.set()
    reasons = await asyncio.gather(*waiting)
    assert reasons == [None, None, Reason.NOT_SIGNED] * 20
    assert len(setup.pile.requests) == 3


async def test_who_is_answered_does_not_wait_for_the_others(setup: Setup) -> None:
    """A request for an unsigned digest walks on; the one for a child needs the index only."""
    setup.pile.gate = asyncio.Event()
    child, layer = (
        asyncio.create_task(setup.reason(request))
        for request in (request_for(CHILD), request_for(b"nothing", Role.BLOB))
    )
    await settle()
    setup.pile.gate.set()
    setup.pile.gate = asyncio.Event()
    assert await child is None
    assert not layer.done()
    setup.pile.gate.set()
    assert await layer is Reason.NOT_SIGNED


@pytest.mark.parametrize("leaving", [0, 1])
async def test_a_waiter_that_leaves_disturbs_nobody(setup: Setup, leaving: int) -> None:
    setup.pile.gate = asyncio.Event()
    request = request_for(LAYER, Role.BLOB)
    waiting = [asyncio.create_task(setup.reason(request)) for _ in range(2)]
    await settle()
    waiting[leaving].cancel()
    await settle()
    setup.pile.gate.set()
    assert await waiting[1 - leaving] is None
    assert waiting[leaving].cancelled()


async def test_a_walk_that_nobody_waits_for_stops_and_forgets_nothing(setup: Setup) -> None:
    setup.pile.gate = asyncio.Event()
    alone = asyncio.create_task(setup.reason())
    await settle()
    alone.cancel()
    await settle()
    setup.pile.gate.set()
    await settle()
    assert len(setup.pile.requests) == 1
    assert await setup.reason() is Reason.NOT_SIGNED
    assert len(setup.pile.requests) == 3


async def test_closing_in_the_middle_never_turns_into_a_no(setup: Setup) -> None:
    setup.pile.gate = asyncio.Event()
    waiting = asyncio.create_task(setup.reason(request_for(LAYER, Role.BLOB)))
    await settle()
    await setup.authorisation.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    setup.pile.gate.set()
    assert await setup.reason(request_for(LAYER, Role.BLOB)) is None


async def test_a_defect_in_the_source_reaches_who_waits(setup: Setup) -> None:
    setup.pile.failing[Digest.of(APP.index)] = RuntimeError("a defect")  # type: ignore[assignment]
    with pytest.raises(RuntimeError):
        await setup.authorisation.decide("dev", UNSIGNED)
    setup.pile.failing.clear()
    assert await setup.reason() is Reason.NOT_SIGNED


async def test_a_withdrawn_image_is_refused_with_the_next_view(setup: Setup) -> None:
    other = PlainImage("other")
    setup.pile.put(*other.every_manifest)
    request = request_for(LAYER, Role.BLOB)
    assert await setup.reason(request) is None
    setup.views.shown = view_of(target(other, "v2"), previous=setup.views.shown)
    assert await setup.reason(request) is Reason.NOT_SIGNED
    setup.views.shown = view_of(fleets=["dev"], previous=setup.views.shown)
    with pytest.raises(Denied):
        setup.authorisation.decide_now("dev", request_for(APP.index))


async def test_a_withdrawal_during_the_walk_counts(setup: Setup) -> None:
    setup.pile.gate = asyncio.Event()
    waiting = asyncio.create_task(setup.reason(request_for(LAYER, Role.BLOB)))
    await settle()
    setup.views.shown = view_of(fleets=["dev"], previous=setup.views.shown)
    setup.pile.gate.set()
    assert await waiting is Reason.NOT_SIGNED


async def test_an_unchanged_repository_keeps_its_answers_across_views(setup: Setup) -> None:
    request = request_for(LAYER, Role.BLOB)
    known = await setup.authorisation.decide("dev", request)
    elsewhere = signed_target("dev/b/v1", place="ghcr.io/org/b")
    setup.views.shown = view_of(target(APP), elsewhere, previous=setup.views.shown)
    assert setup.authorisation.decide_now("dev", request) is known


async def test_a_new_version_costs_no_second_reading(setup: Setup) -> None:
    """A device in the middle of a pull, while another image of its repository is imported."""
    request = request_for(LAYER, Role.BLOB)
    for each in (request_for(APP.index), request_for(CHILD), request):
        await setup.authorisation.decide("dev", each)
    reads = len(setup.pile.requests)
    other = PlainImage("other")
    setup.pile.put(*other.every_manifest)
    setup.views.shown = view_of(target(APP), target(other, "v2"), previous=setup.views.shown)
    assert await setup.reason(request) is None
    assert len(setup.pile.requests) == reads


async def test_referrers_are_those_signed_along() -> None:
    subject = descriptor(APP.index, OCI_INDEX)
    signature = image_manifest(b"{}", [b"sig"], subject=subject, artifactType="a/signature")
    stranger = image_manifest(b"{}", [b"x"], subject=descriptor(CHILD, OCI_MANIFEST))
    signed = signed_target(
        "dev/app/v1",
        APP.index,
        media_type=OCI_INDEX,
        referrers=[Digest.of(signature), Digest.of(stranger)],
    )
    setup = Setup(signed)
    setup.authorisation = Authorisation(
        views=setup.views, manifests=setup.pile, clock=setup.clock, kept=setup.pile.kept
    )
    request = request_for(APP.index, Role.REFERRERS)
    with pytest.raises(Unavailable) as caught:
        await setup.authorisation.referrers("dev", request)
    assert caught.value.reason is Reason.CLOSURE_INCOMPLETE
    setup.pile.put(signature, stranger)
    (found,) = await setup.authorisation.referrers("dev", request)
    assert (found.digest, found.size) == (Digest.of(signature), len(signature))
    assert found.artifact_type == "a/signature"
    (found,) = await setup.authorisation.referrers("dev", request_for(CHILD, Role.REFERRERS))
    assert found.artifact_type == "application/vnd.oci.image.config.v1+json"
    assert await setup.reason(request_for(signature)) is None
    assert await setup.reason(request_for(b"sig", Role.BLOB)) is None
    with pytest.raises(Denied):
        await setup.authorisation.referrers("dev", request_for(b"none", Role.REFERRERS))


async def test_an_image_without_referrers_has_an_empty_list(setup: Setup) -> None:
    assert await setup.authorisation.referrers("dev", request_for(APP.index, Role.REFERRERS)) == ()


async def test_targets_are_found_by_path(setup: Setup) -> None:
    assert await setup.authorisation.target("dev", "dev/app/v1") == target(APP)
    assert await setup.authorisation.target("dev", "dev/app/v2") is None
    with pytest.raises(Denied):
        await setup.authorisation.target("nobody", "dev/app/v1")


async def test_a_known_answer_costs_the_same_among_10000_targets() -> None:
    """No timing of wall clocks: the work of 10 and of 10,000 targets is compared in CPU time."""
    costs = []
    for count in (10, 10_000):
        targets = [signed_target(f"dev/app/v{n}", b"%d" % n) for n in range(count)]
        setup = Setup(*targets)
        request = request_for(b"7")
        assert setup.authorisation.decide_now("dev", request)
        best = 1.0
        for _ in range(20):
            start = time.thread_time()
            for _ in range(500):
                setup.authorisation.decide_now("dev", request)
            best = min(best, time.thread_time() - start)
        costs.append(best)
    assert costs[1] < 2 * costs[0]
