"""Referrers: read once, within bounds; a hole is never remembered, a broken one is."""

import pytest

from facade.errors import Invalid, Unavailable
from facade.oci.digest import Digest
from facade.oci.manifest import OCI_MANIFEST
from facade.oci.request import Role
from facade.serving.trust.reading import Reader
from facade.serving.trust.referrers import MAX_ANNOTATION_CHARS, Referrers
from tests.support.clock import FakeClock
from tests.support.manifests import descriptor, image_manifest
from tests.support.trust import ManifestPile, request_for

SUBJECT = image_manifest(b"app", [b"layer"])
REQUEST = request_for(SUBJECT, Role.REFERRERS)


def signature(name: str, **annotations: str) -> bytes:
    subject = descriptor(SUBJECT, OCI_MANIFEST)
    return image_manifest(b"{}", [name.encode()], subject=subject, annotations=annotations)


def setup(**bounds: int) -> tuple[ManifestPile, Referrers]:
    pile = ManifestPile()
    return pile, Referrers(Reader(pile, pile.kept, FakeClock()), **bounds)


async def test_each_is_read_once_for_all_requests() -> None:
    pile, referrers = setup()
    signed = [signature("a", key="value"), signature("b")]
    pile.put(*signed)
    digests = list(map(Digest.of, signed))
    first = await referrers.of(REQUEST, digests)
    assert [each.digest for each in first] == digests
    assert first[0].annotations == {"key": "value"}
    assert await referrers.of(REQUEST, digests) == first
    assert await referrers.of(request_for(b"another", Role.REFERRERS), digests) == ()
    assert pile.requests == digests


async def test_one_that_is_missing_is_asked_for_again_and_a_broken_one_is_not() -> None:
    pile, referrers = setup()
    late, broken = signature("late"), b"{}"
    for _ in range(2):
        with pytest.raises(Unavailable):
            await referrers.of(REQUEST, [Digest.of(late)])
    pile.put(late, broken)
    assert len(await referrers.of(REQUEST, [Digest.of(late)])) == 1
    for _ in range(2):
        with pytest.raises(Invalid):
            await referrers.of(REQUEST, [Digest.of(late), Digest.of(broken)])
    assert pile.requests == [Digest.of(late)] * 3 + [Digest.of(broken)]


async def test_annotations_that_do_not_fit_are_left_out() -> None:
    pile, referrers = setup()
    data = signature("a", first="x", long="y" * MAX_ANNOTATION_CHARS, last="z")
    pile.put(data)
    (found,) = await referrers.of(REQUEST, [Digest.of(data)])
    assert found.annotations == {"first": "x", "last": "z"}


@pytest.mark.parametrize("bounds", [{"max_referrers": 2}, {"max_chars": 250}])
async def test_what_is_remembered_is_bounded(bounds: dict[str, int]) -> None:
    pile, referrers = setup(**bounds)
    signed = [signature(name, k="v" * 99) for name in "abc"]
    pile.put(*signed)
    a, b, c = map(Digest.of, signed)
    for digest in (a, b, a, c, a, b):
        assert len(await referrers.of(REQUEST, [digest])) == 1
    assert pile.requests == [a, b, c, b]
