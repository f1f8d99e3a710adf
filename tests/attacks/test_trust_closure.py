"""Attacks on what may be reached from a signed image (trust.md, "Attacks")."""

import json

import pytest

from facade.errors import Denied, FacadeError, Integrity
from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.trust.closure import servable
from facade.serving.trust.decision import Authorisation
from facade.target import SignedTarget
from tests.support.clock import FakeClock
from tests.support.manifests import LAYER_TYPE, PlainImage, descriptor, image_index, image_manifest
from tests.support.trust import ManifestPile, ShownViews, request_for, view_of
from tests.support.tuf_repo import signed_target

APP, SECRET = PlainImage("app"), PlainImage("secret")
LAYER = APP.layers("linux/arm64")[1]


def authorisation(*targets: SignedTarget, pile: ManifestPile | None = None) -> Authorisation:
    if pile is None:
        pile = ManifestPile()
        for place in ("ghcr.io/org/app", "ghcr.io/org/secret", "other.example/org/app"):
            pile.put(*APP.every_manifest, *SECRET.every_manifest, place=place)
    views = ShownViews(view_of(*targets, fleets=["dev", "prod"]))
    return Authorisation(views=views, manifests=pile, clock=FakeClock())


def signed(path: str, data: bytes = APP.index, place: str = "ghcr.io/org/app") -> SignedTarget:
    kind = OCI_INDEX if b'"manifests"' in data else OCI_MANIFEST
    return signed_target(path, data, place=place, media_type=kind)


async def allows(
    decider: Authorisation, data: bytes, role: Role = Role.MANIFEST, fleet: str = "dev"
) -> bool:
    """Whether exactly these bytes are allowed."""
    allowed = await decider.decide(fleet, request_for(data, role))
    return (allowed.digest, allowed.size, allowed.role) == (Digest.of(data), len(data), role)


async def refusal(decider: Authorisation, request: PullRequest, fleet: str = "dev") -> FacadeError:
    with pytest.raises(Denied) as caught:
        await decider.decide(fleet, request)
    assert caught.value.reason is Reason.NOT_SIGNED
    return caught.value


@pytest.mark.parametrize("place", ["ghcr.io/org/secret", "other.example/org/app", "ghcr.io/org"])
async def test_target_with_our_digest_but_another_repository(place: str) -> None:
    decider = authorisation(signed("dev/app/v1"))
    assert await allows(decider, APP.index)
    await refusal(decider, request_for(APP.index, place=place))
    await refusal(decider, request_for(LAYER, Role.BLOB, place=place))


async def test_digest_of_another_fleet() -> None:
    """The answer is the same, to the letter, as for what nobody signed."""
    decider = authorisation(signed("dev/app/v1"), signed("prod/secret/v1", SECRET.index))
    foreign = await refusal(decider, request_for(SECRET.index))
    nobodys = await refusal(decider, request_for(b"nobody's"))
    elsewhere = await refusal(decider, request_for(b"x", place="ghcr.io/org/secret"))
    unknown = await refusal(decider, request_for(APP.index), fleet="nobody")
    for other in (nobodys, elsewhere, unknown):
        assert (type(other), other.message, other.reason, other.retry_after) == (
            *(type(foreign), foreign.message, foreign.reason, foreign.retry_after),
        )
    assert await allows(decider, SECRET.index, fleet="prod")


async def test_layer_of_another_fleets_image() -> None:
    decider = authorisation(signed("dev/app/v1"), signed("prod/secret/v1", SECRET.index))
    layer = SECRET.layers("linux/arm64")[1]
    assert await allows(decider, layer, Role.BLOB, fleet="prod")
    await refusal(decider, request_for(layer, Role.BLOB))
    await refusal(decider, request_for(SECRET.manifests["linux/arm64"]))


async def test_a_layer_asked_for_as_a_manifest() -> None:
    """Also one that is a valid manifest, naming what was never signed."""
    inner = image_manifest(b"config", [b"smuggled"])
    outer = image_manifest(b"config", [], layers=[descriptor(inner, OCI_MANIFEST)])
    pile = ManifestPile()
    pile.put(outer, inner)
    decider = authorisation(signed("dev/app/v1", outer), pile=pile)
    assert await allows(decider, inner, Role.BLOB)
    await refusal(decider, request_for(inner))
    await refusal(decider, request_for(b"smuggled", Role.BLOB))
    assert Digest.of(inner) not in pile.requests


async def test_a_manifest_asked_for_as_a_blob() -> None:
    decider = authorisation(signed("dev/app/v1"))
    for data in APP.every_manifest:
        await refusal(decider, request_for(data, Role.BLOB))


@pytest.mark.parametrize("kind", [OCI_INDEX, OCI_MANIFEST])
async def test_manifest_with_two_faces(kind: str) -> None:
    """CVE-2021-41190: an index to one reader, an image to another."""
    faces = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "manifests": [descriptor(SECRET.manifests["linux/arm64"], OCI_MANIFEST)],
            "config": descriptor(b"config", "application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor(b"layer", LAYER_TYPE)],
        }
    ).encode()
    pile = ManifestPile()
    pile.put(faces, *SECRET.every_manifest, index := image_index([descriptor(faces, kind)]))
    top = signed_target("dev/app/v1", faces, media_type=kind)
    decider = authorisation(top, pile=pile)
    allowed = await decider.decide("dev", request_for(faces))
    with pytest.raises(Integrity):
        servable(faces, allowed)
    for data, role in (
        (b"layer", Role.BLOB),
        (SECRET.manifests["linux/arm64"], Role.MANIFEST),
        (b"config", Role.BLOB),
    ):
        await refusal(decider, request_for(data, role))
    decider = authorisation(signed("dev/app/v2", index), pile=pile)
    await refusal(decider, request_for(b"layer", Role.BLOB))
    await refusal(decider, request_for(faces))


async def test_manifest_whose_media_type_is_not_its_descriptors() -> None:
    child = APP.manifests["linux/arm64"]
    index = image_index([descriptor(child, OCI_INDEX)])
    pile = ManifestPile()
    pile.put(index, child)
    decider = authorisation(signed("dev/app/v1", index), pile=pile)
    await refusal(decider, request_for(LAYER, Role.BLOB))
    await refusal(decider, request_for(child))


async def test_child_added_to_an_index_in_the_cache() -> None:
    """Bytes that do not hash to the signed digest give no edges, and no "no" either."""
    grown = image_index(
        [
            descriptor(data, OCI_MANIFEST)
            for data in (*APP.manifests.values(), *SECRET.manifests.values())
        ]
    )
    pile = ManifestPile()
    pile.put(*APP.manifests.values(), *SECRET.manifests.values())
    pile.lie(Digest.of(APP.index), grown)
    decider = authorisation(signed("dev/app/v1"), pile=pile)
    request = request_for(SECRET.manifests["linux/arm64"])
    with pytest.raises(FacadeError) as caught:
        await decider.decide("dev", request)
    assert caught.value.reason is Reason.CLOSURE_INCOMPLETE
    decider.learn("dev", request_for(APP.index), grown)
    with pytest.raises(FacadeError):
        await decider.decide("dev", request)
    allowed = await decider.decide("dev", request_for(APP.index))
    with pytest.raises(Integrity):
        servable(grown, allowed)


async def test_a_child_that_the_platforms_exclude() -> None:
    limited = signed_target(
        "dev/app/v1", APP.index, media_type=OCI_INDEX, platforms=["linux/arm64"]
    )
    decider = authorisation(limited)
    assert await allows(decider, LAYER, Role.BLOB)
    await refusal(decider, request_for(APP.manifests["linux/amd64"]))
    await refusal(decider, request_for(APP.config("linux/amd64"), Role.BLOB))


async def test_an_image_reached_through_a_subject() -> None:
    """Naming a private image as one's subject grants nothing."""
    mine = image_manifest(b"config", [], subject=descriptor(SECRET.index, OCI_INDEX))
    pile = ManifestPile()
    pile.put(mine, *SECRET.every_manifest)
    decider = authorisation(signed("dev/app/v1", mine), pile=pile)
    await refusal(decider, request_for(SECRET.index))


async def test_a_foreign_layers_urls() -> None:
    """They are not even parsed into anything that could be followed."""
    foreign = descriptor(b"layer", LAYER_TYPE, urls=["https://evil.example/layer"])
    mine = image_manifest(b"config", [], layers=[foreign])
    pile = ManifestPile()
    pile.put(mine)
    decider = authorisation(signed("dev/app/v1", mine), pile=pile)
    allowed = await decider.decide("dev", request_for(b"layer", Role.BLOB))
    assert "evil" not in repr(allowed)


async def test_a_flood_of_unsigned_digests_leaves_nothing_behind() -> None:
    pile = ManifestPile()
    pile.put(*APP.every_manifest)
    decider = authorisation(signed("dev/app/v1"), pile=pile)
    for n in range(2000):
        await refusal(decider, request_for(b"%d" % n, Role.MANIFEST if n % 2 else Role.BLOB))
    assert len(pile.requests) == 3
    (place,) = decider._places.values()
    assert not place.waiting
    assert not place.waiters
    assert not place.walk.asked
