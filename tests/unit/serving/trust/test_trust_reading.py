"""Reading manifests: what is remembered is bounded, and large ones do not hold up the loop."""

import asyncio
import threading

import pytest

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_MANIFEST
from facade.oci.request import Role
from facade.serving.trust.decision import Authorisation
from facade.serving.trust.parsing import INLINE_BYTES, parsed
from facade.serving.trust.reading import Reader
from facade.serving.trust.walk import EDGES_AT_ONCE, Node, Walk
from tests.support.clock import FakeClock
from tests.support.manifests import descriptor, image_manifest
from tests.support.trust import ManifestPile, ShownViews, request_for, view_of
from tests.support.tuf_repo import signed_target

LAYER = descriptor(b"layer", "a/layer")


def manifest_of(count: int, name: str) -> bytes:
    """An image with `count` layers, all the same."""
    return image_manifest(name.encode(), [], layers=[LAYER] * count)


async def read(reader: Reader, pile: ManifestPile, data: bytes) -> int:
    """How many fetches it took."""
    pile.put(data)
    target = signed_target("dev/app/v1", data, media_type=OCI_MANIFEST)
    node = Node(Digest.of(data), len(data), OCI_MANIFEST, (), 1, target)
    request = request_for(data)
    return await reader.read(Walk((target,)), node, request.host, request.repository)


async def test_readings_are_bounded_by_their_edges() -> None:
    pile = ManifestPile()
    reader = Reader(pile, None, FakeClock(), max_edges=100)
    many = [manifest_of(30, f"{number}") for number in range(4)]
    small = manifest_of(1, "small")
    assert await read(reader, pile, small) == 1
    assert await read(reader, pile, small) == 0
    for data in many:
        assert await read(reader, pile, data) == 1
    assert await read(reader, pile, many[-1]) == 0
    assert await read(reader, pile, many[0]) == 1
    assert await read(reader, pile, small) == 1
    assert reader._edges <= 100
    assert reader._edges == sum(len(each.edges) for each in reader._readings.values())


@pytest.mark.parametrize(("size", "in_thread"), [(INLINE_BYTES, False), (INLINE_BYTES + 1, True)])
async def test_only_large_ones_are_read_in_a_thread(size: int, in_thread: bool) -> None:
    where = await parsed(bytes(size), threading.get_ident)
    assert (where != threading.get_ident()) is in_thread


async def test_a_large_manifest_that_was_served_is_left_to_the_walk() -> None:
    data = manifest_of(3000, "large")
    assert len(data) > INLINE_BYTES
    views = ShownViews(view_of(signed_target("dev/app/v1", data, media_type=OCI_MANIFEST)))
    pile = ManifestPile()
    pile.put(data)
    authorisation = Authorisation(views=views, manifests=pile, clock=FakeClock(), kept=pile.kept)
    assert authorisation.decide_now("dev", request_for(data))
    authorisation.learn("dev", request_for(data), data)
    layer = request_for(b"layer", Role.BLOB)
    assert authorisation.decide_now("dev", layer) is None
    assert (await authorisation.decide("dev", layer)).size == 5
    assert pile.requests == [Digest.of(data)]
    await authorisation.close()


async def test_others_are_served_while_many_edges_are_followed() -> None:
    data = manifest_of(10 * EDGES_AT_ONCE, "large")
    pile = ManifestPile()
    reader = Reader(pile, None, FakeClock())
    await read(reader, pile, data)
    # What was read before is followed without waiting for a thread: only the pauses let others in.
    reading = asyncio.create_task(read(reader, pile, data))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert reading.result() == 0
    assert turns >= 10


async def test_one_who_leaves_in_the_middle_of_a_large_manifest_loses_nothing() -> None:
    data = manifest_of(30_000, "large")
    views = ShownViews(view_of(signed_target("dev/app/v1", data, media_type=OCI_MANIFEST)))
    pile = ManifestPile()
    pile.put(data)
    authorisation = Authorisation(views=views, manifests=pile, clock=FakeClock())
    layer = request_for(b"layer", Role.BLOB)
    first = asyncio.create_task(authorisation.decide("dev", layer))
    while not pile.requests:  # noqa: ASYNC110 - until the walk is in the middle
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    assert (await authorisation.decide("dev", layer)).size == 5
    await authorisation.close()
