"""Making the facade say "no" where the truth is "yes" or "not known yet" (trust.md, "The closure")."""

import asyncio

import pytest

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX
from facade.oci.request import Role
from facade.serving.trust.decision import Authorisation
from tests.support.clock import FakeClock
from tests.support.manifests import PlainImage
from tests.support.trust import ManifestPile, ShownViews, request_for, view_of
from tests.support.tuf_repo import signed_target

APP = PlainImage("app")
LAYER = APP.layers("linux/arm64")[1]


@pytest.mark.parametrize("late", ["layer", "unsigned"])
async def test_a_device_that_asks_while_the_last_manifest_is_being_read(late: str) -> None:
    """Nothing is left to read then, but what is being read may still name it."""
    pile = ManifestPile()
    pile.put(*APP.every_manifest)
    pile.gate = asyncio.Event()
    target = signed_target("dev/app/v1", APP.index, place="ghcr.io/org/app", media_type=OCI_INDEX)
    decider = Authorisation(
        views=ShownViews(view_of(target)), manifests=pile, clock=FakeClock(), kept=pile.kept
    )
    first = asyncio.create_task(decider.decide("dev", request_for(LAYER, Role.BLOB)))
    while not pile.requests:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    wanted = LAYER if late == "layer" else b"signed by nobody"
    second = asyncio.create_task(decider.decide("dev", request_for(wanted, Role.BLOB)))
    done, _ = await asyncio.wait([second], timeout=0.05)
    assert not done, second.exception()
    pile.gate.set()
    assert (await first).digest == Digest.of(LAYER)
    answer = (await asyncio.gather(second, return_exceptions=True))[0]
    assert (late == "layer") is not isinstance(answer, BaseException)
