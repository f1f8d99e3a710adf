"""Artifacts and fleets: listed, shown, verified, withdrawn."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from facade.control.catalog.fleets import Fleets
from facade.control.signing.ceremony import FleetDelegation
from facade.control.signing.keys import OnlineKeys
from facade.control.signing.status import trust_status
from facade.errors import Conflict, Invalid, NotFound, Upstream
from facade.oci.digest import Digest
from facade.reasons import Reason
from facade.wings import Pulled
from tests.support.importing import CONNECTION, HOST, REPOSITORY, Importing, importing
from tests.support.manifests import PlainImage, descriptor, image_index, image_manifest
from tests.support.memory_registry import digests_of

APP = PlainImage("app")
V1 = ("dev", "app", "v1")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Importing]:
    async with importing(tmp_path, "dev", "shop") as parts:
        parts.registry.add_image(APP, "v1", "v10", "v9")
        yield parts


async def test_a_page_newest_first_with_what_is_remembered(parts: Importing) -> None:
    await parts.run("v1", "v9", "v10")
    await parts.run("v1", fleet="shop", name="till")
    page, total = await parts.artifacts.list(limit=2, offset=1)
    assert total == 4
    assert [record.target.path for record in page] == ["dev/app/v9", "dev/app/v1"]
    assert page[0].imported_by == "op"
    assert page[0].bytes is not None
    shop, count = await parts.artifacts.list(fleets=frozenset({"shop", "nowhere"}))
    assert ([record.target.path for record in shop], count) == (["shop/till/v1"], 1)
    assert (await parts.artifacts.list(name="till"))[1] == 1


async def test_one_artifact_with_its_pulls_counted(parts: Importing) -> None:
    await parts.run("v1")
    digest = str(Digest.of(APP.index))
    await parts.pulls.add(
        [
            Pulled(5.0, "dev/kiosk", str(HOST), str(REPOSITORY), digest, "manifest", "served"),
            Pulled(9.0, "dev/kiosk", str(HOST), str(REPOSITORY), digest, "manifest", "served"),
            Pulled(9.5, "shop/till", str(HOST), str(REPOSITORY), digest, "manifest", "served"),
            Pulled(
                *(9.9, "dev/kiosk", str(HOST), str(REPOSITORY), digest, "manifest", "refused"),
                reason=Reason.INTEGRITY,
            ),
        ],
        [],
    )
    record = await parts.artifacts.get(*V1)
    assert (record.pulled, record.last_pulled) == (2, 9.0)
    assert record.target.reference == "v1"
    assert record.platforms == APP.platforms, "as its index names them"


async def test_the_platforms_that_devices_are_served(parts: Importing) -> None:
    await parts.run("v1", platforms=("linux/arm64",), name="small")
    assert (await parts.artifacts.get("dev", "small", "v1")).platforms == ("linux/arm64",)


@pytest.mark.parametrize("path", [("dev", "app", "v2"), ("nowhere", "app", "v1")])
async def test_what_is_not_signed_is_not_found(
    parts: Importing, path: tuple[str, str, str]
) -> None:
    with pytest.raises(NotFound):
        await parts.artifacts.get(*path)
    with pytest.raises(NotFound):
        await parts.artifacts.verify(*path)
    with pytest.raises(NotFound):
        await parts.artifacts.withdraw(*path, actor="op")


async def test_verify_finds_nothing_wrong_and_then_what_was_lost(parts: Importing) -> None:
    await parts.run("v1")
    good = await parts.artifacts.verify(*V1)
    assert (good.checked, good.problems) == (9, ())
    lost = Digest.of(APP.layers("linux/arm64")[0])
    del parts.registry.blobs[lost]
    [(digest, words)] = (await parts.artifacts.verify(*V1)).problems
    assert digest == str(lost)
    assert "does not have" in words
    del parts.registry.manifests[str(Digest.of(APP.index))]
    [(digest, _)] = (await parts.artifacts.verify(*V1)).problems
    assert digest == str(Digest.of(APP.index))


async def test_verify_does_not_take_an_outage_for_a_loss(parts: Importing) -> None:
    await parts.run("v1")
    parts.registry.failures[str(Digest.of(APP.index))] = Upstream(
        "down", reason=Reason.UPSTREAM_UNREACHABLE
    )
    with pytest.raises(Upstream, match="down"):
        await parts.artifacts.verify(*V1)


async def test_verify_makes_a_lost_kept_manifest_whole(parts: Importing, tmp_path: Path) -> None:
    await parts.run("v1")
    child = digests_of(APP)[1]
    await parts.manifests.keep(HOST, REPOSITORY, {child: b"damaged"})
    assert await parts.manifests.get(HOST, REPOSITORY, child) is None
    await parts.artifacts.verify(*V1)
    assert await parts.manifests.get(HOST, REPOSITORY, child) == APP.every_manifest[1]


async def test_withdrawn_means_out_of_the_metadata_and_remembered(parts: Importing) -> None:
    await parts.run("v1")
    await parts.artifacts.withdraw(*V1, actor="boss")
    assert parts.signed.publisher.targets("dev") == {}
    [record] = await parts.records.of_name("dev", "app")
    assert record.withdrawn_by == "boss"
    with pytest.raises(NotFound):
        await parts.artifacts.get(*V1)


async def test_blobs_come_from_kept_manifests_without_asking_upstream(parts: Importing) -> None:
    signature = image_manifest(
        b"{}", [b"sig"], subject=descriptor(APP.index, "application/vnd.oci.image.index.v1+json")
    )
    parts.registry.add(signature)
    parts.registry.add_blobs(b"{}", b"sig")
    parts.registry.referring[Digest.of(APP.index)] = image_index(
        [descriptor(signature, "application/vnd.oci.image.manifest.v1+json")]
    )
    await parts.run("v1", with_referrers=True, platforms=("linux/arm64",))
    parts.registry.asked.clear()
    connection, repository, blobs = await parts.artifacts.blobs(*V1)
    assert (connection, repository) == (CONNECTION, REPOSITORY)
    expected = (APP.config("linux/arm64"), *APP.layers("linux/arm64"), b"{}", b"sig")
    assert dict(blobs) == {Digest.of(blob): len(blob) for blob in expected}
    assert not parts.registry.asked
    await parts.manifests.keep(HOST, REPOSITORY, {Digest.of(APP.index): b"lost"})
    await parts.artifacts.blobs(*V1)
    assert list(parts.registry.asked) == [str(Digest.of(APP.index))]


async def test_fleets_are_listed_and_added_while_the_key_is_at_hand(parts: Importing) -> None:
    signed = parts.signed
    secret = signed.folder.parent / "passphrase"
    secret.write_text("correct horse\n")
    online = OnlineKeys(signed.online)

    def fleets(offline: Path | None) -> Fleets:
        delegation = FleetDelegation(
            *(signed.folder, signed.online, signed.clock), offline=offline, passphrase_file=secret
        )
        return Fleets(
            delegation,
            lambda: trust_status(signed.folder, online, offline=None, clock=signed.clock).roles,
        )

    await parts.run("v1")
    found = await fleets(None).list()
    assert [(fleet.name, fleet.artifacts) for fleet in found] == [("dev", 1), ("shop", 0)]
    with pytest.raises(Conflict, match="facade trust delegate depot"):
        await fleets(None).add("depot")
    assert (await fleets(signed.offline).add("depot")).name == "depot"
    assert (await fleets(None).add("depot")).version == 1, "there already"
    with pytest.raises(Invalid):
        await fleets(signed.offline).add("timestamp")
