"""The stand-ins for views and manifests do what they promise."""

import pytest

from facade.errors import Unavailable, Upstream
from facade.oci.digest import Digest
from tests.support.trust import ManifestPile, ShownViews, request_for, view_of
from tests.support.tuf_repo import signed_target


async def test_manifests_lie_in_their_place_only() -> None:
    pile = ManifestPile()
    pile.put(b"a", place="ghcr.io/org/a")
    pile.lie(Digest.of(b"b"), b"other", place="ghcr.io/org/a")
    here, there = (request_for(b"a", place=f"ghcr.io/org/{name}") for name in "ab")
    assert await pile.manifest(here.host, here.repository, here.digest, 1) == b"a"
    assert await pile.kept(here.host, here.repository, Digest.of(b"b")) == b"other"
    with pytest.raises(Upstream):
        await pile.manifest(there.host, there.repository, there.digest, 1)
    assert pile.requests == [Digest.of(b"a"), Digest.of(b"b"), Digest.of(b"a")]


async def test_views_are_shown_and_replaced() -> None:
    target = signed_target("dev/app/v1")
    views = ShownViews(view_of(fleets=["dev"]))
    views.loads["dev"] = view_of(target, previous=views.shown)
    await views.fleet("dev")
    assert views.view().fleets["dev"].by_path == {"dev/app/v1": target}
    assert views.view().generation == 2
    views.error = Unavailable("Away.")
    with pytest.raises(Unavailable):
        views.view()
