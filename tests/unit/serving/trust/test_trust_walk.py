"""The walk's order and its memory, driven by hand."""

from facade.oci.digest import Digest
from facade.oci.manifest import OCI_INDEX, OCI_MANIFEST, parse_manifest
from facade.oci.platform import Platform
from facade.oci.request import Role
from facade.serving.trust.closure import edges
from facade.serving.trust.walk import (
    EDGES_AT_ONCE,
    HOLE_SECONDS,
    MAX_DEPTH,
    Node,
    Reading,
    Walk,
)
from facade.target import SignedTarget
from tests.support.manifests import PlainImage, descriptor, image_index, image_manifest
from tests.support.tuf_repo import signed_target


def _reading(data: bytes, platforms: tuple[Platform, ...] = ()) -> Reading:
    manifest = parse_manifest(data)
    return Reading(len(data), manifest.media_type, edges(Digest.of(data), manifest, platforms))


def _target(image: PlainImage, version: str = "v1", **more: object) -> SignedTarget:
    platforms = more.get("platforms", ())
    assert isinstance(platforms, tuple)
    return signed_target(
        f"dev/app/{version}", image.index, media_type=OCI_INDEX, platforms=platforms
    )


class Walker:
    """Feeds a walk from a pile of manifests."""

    def __init__(self, walk: Walk, *data: bytes) -> None:
        self.walk = walk
        self.pile = {Digest.of(each): each for each in data}
        self.order: list[Digest] = []

    def step(self, now: float = 0.0) -> bool:
        node = self.walk.take(now)
        if node is None:
            return False
        self.order.append(node.digest)
        data = self.pile.get(node.digest)
        if data is None:
            self.walk.hole(node, now)
        else:
            self.walk.expand(node, _reading(data, node.platforms))
        return True

    def run(self, now: float = 0.0) -> None:
        while self.step(now):
            pass


def test_the_newest_targets_closure_is_read_before_the_next() -> None:
    old, new = PlainImage("old"), PlainImage("new")
    walk = Walk((_target(new, "v2"), _target(old, "v1")))
    walker = Walker(walk, *old.every_manifest, *new.every_manifest)
    walker.run()
    assert walker.order == [Digest.of(data) for data in (*new.every_manifest, *old.every_manifest)]
    assert walk.exhausted(0.0)
    assert walk.complete


def test_what_was_asked_for_is_read_first() -> None:
    images = [PlainImage(f"v{n}") for n in range(5)]
    walk = Walk(tuple(_target(image, image.name) for image in images))
    walker = Walker(walk, *(data for image in images for data in image.every_manifest))
    wanted = images[3]
    walk.ask(Digest.of(wanted.index))
    walker.step()
    assert walker.order == [Digest.of(wanted.index)]
    child = wanted.manifests["linux/arm64"]
    assert walk.find(Role.MANIFEST, Digest.of(child))
    walk.ask(Digest.of(child))
    walker.step()
    assert walker.order[-1] == Digest.of(child)
    layer = walk.find(Role.BLOB, Digest.of(wanted.layers("linux/arm64")[1]))
    assert layer
    assert layer.target.version == "v3"


def test_what_was_asked_for_is_remembered_for_the_next_walk() -> None:
    images = [PlainImage(f"v{n}") for n in range(5)]
    targets = tuple(_target(image, image.name) for image in images)
    everything = [data for image in images for data in image.every_manifest]
    walk = Walk(targets)
    walker = Walker(walk, *everything)
    wanted = images[3]
    child = wanted.manifests["linux/arm64"]
    for digest in (Digest.of(wanted.index), Digest.of(child)):
        walk.ask(digest)
        walker.step()
    again = Walker(Walk(targets[1:], walk.asked), *everything)
    again.step()
    again.step()
    assert again.order == [Digest.of(wanted.index), Digest.of(child)]


def test_asking_for_what_nobody_named_is_not_remembered() -> None:
    walk = Walk((_target(PlainImage("v1")),))
    for n in range(5000):
        walk.ask(Digest.of(b"%d" % n))
    assert walk.asked == ()


def test_a_role_is_part_of_the_answer() -> None:
    image = PlainImage("v1")
    walk = Walk((_target(image),))
    Walker(walk, *image.every_manifest).run()
    layer, child = image.layers("linux/arm64")[1], image.manifests["linux/arm64"]
    assert walk.find(Role.BLOB, Digest.of(layer))
    assert walk.find(Role.MANIFEST, Digest.of(layer)) is None
    assert walk.find(Role.MANIFEST, Digest.of(child))
    assert walk.find(Role.BLOB, Digest.of(child)) is None
    assert walk.find(Role.BLOB, Digest.of(image.index)) is None


def test_platforms_limit_what_one_target_grants_and_not_another() -> None:
    image = PlainImage("v1")
    limited = _target(image, "v2", platforms=("linux/arm64",))
    other = Digest.of(image.manifests["linux/amd64"])
    walk = Walk((limited,))
    Walker(walk, *image.every_manifest).run()
    assert walk.complete
    assert walk.find(Role.MANIFEST, other) is None
    assert walk.find(Role.BLOB, Digest.of(image.config("linux/amd64"))) is None
    walk = Walk((limited, _target(image, "v1")))
    Walker(walk, *image.every_manifest).run()
    found = walk.find(Role.MANIFEST, other)
    assert found
    assert found.target.version == "v1"


def test_a_hole_keeps_the_walk_incomplete_until_it_is_filled() -> None:
    image = PlainImage("v1")
    walk = Walk((_target(image),))
    child = image.manifests["linux/amd64"]
    walker = Walker(walk, image.index, image.manifests["linux/arm64"])
    walker.run()
    assert walk.exhausted(0.0)
    assert not walk.complete
    assert walk.find(Role.BLOB, Digest.of(image.config("linux/arm64"))), "it blocks nobody else"
    assert not walk.exhausted(HOLE_SECONDS)
    walker.pile[Digest.of(child)] = child
    walker.run(HOLE_SECONDS)
    assert walk.find(Role.BLOB, Digest.of(image.config("linux/amd64")))
    assert walk.exhausted(10 * HOLE_SECONDS)


def test_what_was_put_back_is_taken_again() -> None:
    image = PlainImage("v1")
    walk = Walk((_target(image),))
    node = walk.take(0.0)
    assert node
    assert walk.take(0.0) is None
    walk.put_back(node)
    assert not walk.exhausted(0.0)
    assert walk.take(0.0) == node


def test_nothing_is_read_twice() -> None:
    image = PlainImage("v1")
    walk = Walk((_target(image, "v2"), _target(image, "v1")))
    walker = Walker(walk, *image.every_manifest)
    walker.run()
    assert len(walker.order) == 3
    walk.ask(Digest.of(image.index))
    assert walk.exhausted(0.0)


def test_a_wrong_size_spoils_the_edge_that_stated_it_and_no_other() -> None:
    manifest = image_manifest(b"config", [b"layer"])
    liar = image_index([descriptor(manifest, OCI_MANIFEST, size=len(manifest) + 1)])
    honest = image_index([descriptor(manifest, OCI_MANIFEST)])
    digest = Digest.of(manifest)
    targets = tuple(
        signed_target(f"dev/app/v{n}", data, media_type=OCI_INDEX)
        for n, data in ((2, liar), (1, honest))
    )
    walk = Walk(targets[:1])
    Walker(walk, manifest, liar).run()
    assert walk.complete
    assert walk.find(Role.MANIFEST, digest) is None
    assert walk.find(Role.BLOB, Digest.of(b"layer")) is None
    walk = Walk(targets)
    Walker(walk, manifest, liar, honest).run()
    found = walk.find(Role.MANIFEST, digest)
    assert found
    assert (found.size, found.sizes) == (len(manifest), (len(manifest),))
    assert walk.find(Role.BLOB, Digest.of(b"layer"))


def test_a_blob_with_two_sizes_tells_both() -> None:
    honest = image_manifest(b"config", [b"layer"])
    liar = image_manifest(b"config", [], layers=[descriptor(b"layer", "a/b", size=99)])
    targets = tuple(signed_target(f"dev/app/v{n}", data) for n, data in ((2, liar), (1, honest)))
    walk = Walk(targets)
    Walker(walk, honest, liar).run()
    found = walk.find(Role.BLOB, Digest.of(b"layer"))
    assert found
    assert (found.size, found.sizes) == (99, (99, 5))


def test_manifests_deeper_than_the_bound_stay_undecided() -> None:
    data = [image_manifest(b"config", [b"layer"])]
    kinds = [OCI_MANIFEST]
    for _ in range(MAX_DEPTH):
        data.append(image_index([descriptor(data[-1], kinds[-1])]))
        kinds.append(OCI_INDEX)
    for top, complete in ((MAX_DEPTH - 1, True), (MAX_DEPTH, False)):
        walk = Walk((signed_target("dev/app/v1", data[top], media_type=OCI_INDEX),))
        walker = Walker(walk, *data)
        walker.run()
        assert len(walker.order) == MAX_DEPTH
        assert walk.complete is complete
        assert (walk.find(Role.BLOB, Digest.of(b"layer")) is not None) is complete


def test_signed_referrers_are_reached_once_their_size_is_known() -> None:
    image = PlainImage("v1")
    signature = image_manifest(b"{}", [b"signature"], subject=descriptor(image.index, OCI_INDEX))
    target = signed_target(
        "dev/app/v1", image.index, media_type=OCI_INDEX, referrers=[Digest.of(signature)]
    )
    walk = Walk((target,))
    assert walk.find(Role.MANIFEST, Digest.of(signature)) is None
    walk.ask(Digest.of(signature))
    walker = Walker(walk, signature, *image.every_manifest)
    walker.step()
    found = walk.find(Role.MANIFEST, Digest.of(signature))
    assert found
    assert (found.size, found.media_type) == (len(signature), OCI_MANIFEST)
    assert walk.find(Role.BLOB, Digest.of(b"signature"))


def test_a_spoilt_node_is_not_granted_again() -> None:
    manifest = image_manifest(b"config", [])
    indexes = [
        image_index([descriptor(manifest, OCI_MANIFEST)], annotations={"n": str(n)})
        for n in range(2)
    ]
    walk = Walk(
        tuple(
            signed_target(f"dev/app/v{n}", data, media_type=OCI_INDEX)
            for n, data in enumerate(indexes)
        )
    )
    digest = Digest.of(manifest)
    seen: list[Node] = []
    while (node := walk.take(0.0)) is not None:
        seen.append(node)
        if node.digest == digest:
            walk.spoil(node)
        else:
            walk.expand(node, _reading(next(d for d in indexes if Digest.of(d) == node.digest)))
    assert len(seen) == 3
    assert walk.find(Role.MANIFEST, digest) is None


def test_half_a_manifest_denies_nothing_and_can_be_followed_again() -> None:
    count = 3 * EDGES_AT_ONCE
    layers = [descriptor(str(number).encode(), "a/layer") for number in range(count)]
    data = image_manifest(b"config", [], layers=layers)
    first, last = Digest.of(b"0"), Digest.of(str(count - 1).encode())
    walk = Walk((signed_target("dev/app/v1", data, media_type=OCI_MANIFEST),))
    node = walk.take(0.0)
    assert node is not None
    steps = walk.expanding(node, _reading(data))
    next(steps)
    assert walk.find(Role.BLOB, first)
    assert walk.find(Role.BLOB, last) is None
    assert walk.take(0.0) is None
    assert not walk.exhausted(0.0)  # so that nobody is told no

    del steps  # whoever walked was cancelled
    walk.put_back(node)
    again = walk.take(0.0)
    assert again == node
    assert sum(1 for _ in walk.expanding(node, _reading(data))) == 3
    assert walk.find(Role.BLOB, last)
    assert walk.find(Role.BLOB, first)
    assert walk.exhausted(0.0)
    assert walk.complete
