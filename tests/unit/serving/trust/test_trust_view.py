"""Views are indexed by place, newest first, and share what did not change."""

from dataclasses import replace

import pytest

from facade.errors import Unavailable
from facade.oci.digest import Digest
from facade.reasons import Reason
from facade.serving.trust.view import FleetView, SignedView
from tests.support.tuf_repo import signed_target


def _view(fleet: FleetView | None = None) -> SignedView:
    return SignedView(
        generation=1,
        versions={},
        expires={"root": 400.0, "targets": 300.0, "snapshot": 200.0, "timestamp": 100.0},
        known_fleets=frozenset({"dev"}),
        fleets={} if fleet is None else {"dev": fleet},
    )


def test_targets_are_found_by_their_place_and_digest_only() -> None:
    here = signed_target("dev/app/v1", b"same")
    there = signed_target("dev/other/v1", b"same", place="ghcr.io/org/other")
    view = _view(FleetView.build("dev", [here, there], version=1, expires=50.0))
    host, digest = here.registry, here.digest
    assert view.targets("dev", host, here.repository, digest) == (here,)
    assert view.targets("dev", host, there.repository, digest) == (there,)
    assert view.targets("dev", host, here.repository, Digest.of(b"else")) == ()
    assert view.targets("prod", host, here.repository, digest) == ()


def test_versions_are_ordered_by_their_numbers() -> None:
    versions = ["v9", "v10", "v1.2", "v1.10", "latest", "1.0", "v10-rc1"]
    view = FleetView.build(
        "dev", [signed_target(f"dev/app/{v}", v.encode()) for v in versions], version=1, expires=9
    )
    (listed,) = view.by_place.values()
    assert [target.version for target in listed] == [
        *("v10-rc1", "v10", "v9", "v1.10", "v1.2", "latest", "1.0")
    ]


def test_what_has_not_changed_is_the_same_object() -> None:
    one, two = (signed_target(f"dev/a/v{n}", place=f"ghcr.io/org/a{n}") for n in (1, 2))
    before = FleetView.build("dev", [one, two], version=1, expires=9)
    after = FleetView.build(
        "dev",
        [replace(one), replace(two), signed_target("dev/a/v3", b"3", place="ghcr.io/org/a2")],
        version=2,
        expires=9,
        previous=before,
    )
    first, second = (one.registry, one.repository), (two.registry, two.repository)
    assert after.by_place[first] is before.by_place[first]
    assert after.by_place[second] is not before.by_place[second]
    assert after.by_path["dev/a/v2"] is two


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_every_top_level_role_has_to_be_fresh(role: str) -> None:
    view = replace(_view(), expires={**_view().expires, role: 10.0})
    view.check_fresh(None, 9.9)
    with pytest.raises(Unavailable, match=role) as caught:
        view.check_fresh(None, 10.0)
    assert caught.value.reason is Reason.METADATA_EXPIRED
    assert caught.value.retry_after


def test_a_fleets_role_counts_for_that_fleet_only() -> None:
    view = _view(FleetView.build("dev", [], version=1, expires=50.0))
    view.check_fresh("dev", 49.0)
    view.check_fresh("prod", 60.0)
    with pytest.raises(Unavailable, match="fleet"):
        view.check_fresh("dev", 50.0)
