"""Import: one outcome per tag, one publication per batch, nothing lost when imports meet."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from facade.control.catalog.importer import Importer
from facade.control.catalog.planning import Status
from facade.errors import Invalid, NotFound, Unavailable, Upstream
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.reasons import Reason
from facade.upstream.connection import Connection
from facade.wings import CacheStatus, WarmResult
from tests.support.importing import HOST, REPOSITORY, Importing, importing
from tests.support.manifests import PlainImage
from tests.support.memory_registry import OneConnection, digests_of

ONE, TWO = PlainImage("one"), PlainImage("two")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Importing]:
    async with importing(tmp_path, "dev", "shop") as parts:
        yield parts


async def test_a_tag_becomes_a_signed_artifact_with_its_manifests_kept(parts: Importing) -> None:
    digest = parts.registry.add_image(ONE, "v1")
    [outcome] = await parts.run("v1")
    assert (outcome.status, outcome.digest, outcome.target) == (
        Status.IMPORTED,
        digest,
        "dev/app/v1",
    )
    target = parts.signed.publisher.targets("dev")["dev/app/v1"]
    assert (target.digest, target.length) == (digest, len(ONE.index))
    for manifest in ONE.every_manifest:
        assert await parts.manifests.get(HOST, REPOSITORY, Digest.of(manifest)) == manifest
    [record] = await parts.records.of_name("dev", "app")
    assert (record.imported_by, record.reference, record.manifests) == ("op", "v1", 3)
    assert parts.signed.publisher.targets("shop") == {}


async def test_one_bad_tag_never_fails_the_rest_and_the_batch_is_one_version(
    parts: Importing,
) -> None:
    parts.registry.add_image(ONE, "v1", "v3")
    parts.registry.add_image(TWO, "v2")
    parts.registry.add(b"no manifest", "bad")
    before = parts.signed.publisher.resign(), len(list(parts.signed.metadata.iterdir()))
    outcomes = await parts.run("v1", "gone", "v2", "bad", "v3", "v1")
    assert [(outcome.reference, outcome.status) for outcome in outcomes] == [
        ("v1", Status.IMPORTED),
        ("gone", Status.FAILED),
        ("v2", Status.IMPORTED),
        ("bad", Status.FAILED),
        ("v3", Status.IMPORTED),
    ]
    assert outcomes[1].error is not None
    assert "gone" in outcomes[1].error
    assert outcomes[3].error == "The manifest is not valid JSON."
    after = len(list(parts.signed.metadata.iterdir()))
    assert after - before[1] == 2, "one new fleet role and one snapshot"


async def test_running_it_again_changes_nothing_and_a_retag_stands_beside(
    parts: Importing,
) -> None:
    parts.registry.add_image(ONE, "v1")
    await parts.run("v1")
    assert [outcome.status for outcome in await parts.run("v1")] == [Status.UNCHANGED]
    moved = parts.registry.add_image(TWO, "v1")
    [outcome] = await parts.run("v1")
    assert (outcome.status, outcome.target) == (Status.MOVED, f"dev/app/v1-{moved.hex[:12]}")
    assert len(parts.signed.publisher.targets("dev")) == 2


async def test_by_digest_with_platforms_and_a_name(parts: Importing) -> None:
    digest = parts.registry.add_image(ONE)
    [outcome] = await parts.run(
        str(digest), name="kiosk", version="1.0", platforms=("linux/arm64", "linux/aarch64")
    )
    assert outcome.target == "dev/kiosk/1.0"
    target = parts.signed.publisher.targets("dev")["dev/kiosk/1.0"]
    assert target.platforms == ("linux/arm64",)
    amd64 = digests_of(ONE)[1]
    assert await parts.manifests.get(HOST, REPOSITORY, amd64) is None


@pytest.mark.parametrize(
    ("order", "error", "words"),
    [
        ({"fleet": "nowhere"}, NotFound, "facade fleet add nowhere"),
        ({"fleet": "root"}, Invalid, "root"),
        ({"host": RegistryHost("ghcr.io")}, NotFound, "ghcr.io is not connected"),
        ({"version": "1.0"}, Invalid, "single tag"),
        ({"name": "No!"}, Invalid, "artifact name"),
        ({"platforms": ("arm64",)}, Invalid, "os/architecture"),
        ({"repository": Repository("org/" + "a" * 80)}, Invalid, "--name"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_whole(
    parts: Importing, order: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await parts.run("v1", "v2", **order)
    assert not parts.registry.asked


async def test_no_tags_at_all(parts: Importing) -> None:
    with pytest.raises(Invalid, match="at least one"):
        await parts.run()


async def test_two_imports_at_once_lose_nothing(parts: Importing) -> None:
    tags = [f"v{number}" for number in range(10)]
    for number, tag in enumerate(tags):
        parts.registry.add_image(PlainImage(f"image {number}"), tag)
    other = Importer(
        connections=OneConnection(Connection("c1", HOST, "static")),
        registry=parts.registry,
        publisher=parts.signed.reopened(),
        manifests=parts.manifests,
        records=parts.records,
    )
    mine, parts.importer = parts.importer, other
    second = asyncio.create_task(parts.run(*tags[3:]))
    await asyncio.sleep(0)
    parts.importer = mine
    first = await parts.run(*tags[:7])
    statuses = {outcome.status for outcome in (*first, *await second)}
    assert statuses <= {Status.IMPORTED, Status.UNCHANGED}
    assert len(parts.signed.publisher.targets("dev")) == 10


async def test_an_import_killed_after_signing_is_noted_by_the_next(parts: Importing) -> None:
    parts.registry.add_image(ONE, "v1")
    await parts.run("v1")
    [record] = await parts.records.of_name("dev", "app")
    await parts.records.withdrawn(("dev", "app", "v1"), actor="x")  # as if it had not been noted
    [outcome] = await parts.run("v1")
    assert outcome.status is Status.UNCHANGED
    [again] = await parts.records.of_name("dev", "app")
    assert (again.withdrawn_at, again.digest) == (None, record.digest)


async def test_what_cannot_be_signed_fails_in_words_and_the_rest_stays(parts: Importing) -> None:
    @dataclass
    class Full:
        """A publisher whose disk is full."""

        inner: Any

        def fleets(self) -> tuple[str, ...]:
            return self.inner.fleets()  # type: ignore[no-any-return]

        def targets(self, fleet: str) -> Any:
            return self.inner.targets(fleet)

        def publish(self, fleet: str, **change: Any) -> None:
            raise Unavailable("The disk is full.")

    parts.registry.add_image(ONE, "v1")
    parts.registry.add_image(TWO, "v2")
    await parts.run("v1")
    parts.importer = Importer(
        connections=OneConnection(Connection("c1", HOST, "static")),
        registry=parts.registry,
        publisher=Full(parts.signed.publisher),
        manifests=parts.manifests,
        records=parts.records,
    )
    outcomes = await parts.run("v1", "v2")
    assert [(o.status, o.error) for o in outcomes] == [
        (Status.UNCHANGED, None),
        (Status.FAILED, "The disk is full."),
    ]
    assert len(await parts.records.of_name("dev", "app")) == 1


async def test_progress_tells_each_step_and_each_outcome_once(parts: Importing) -> None:
    parts.registry.add_image(ONE, "v1")
    await parts.run("v1", "gone")
    done = [event for event in parts.events if "status" in event]
    assert {(event["tag"], event["status"]) for event in done} == {
        ("v1", "imported"),
        ("gone", "failed"),
    }
    assert len(done) == 2
    assert {"tag": "v1", "step": "checking"} in parts.events
    assert all("error" in event for event in done if event["status"] == "failed")


async def test_a_rate_limited_registry_is_told_in_its_words(parts: Importing) -> None:
    parts.registry.failures["v1"] = Upstream(
        "toomanyrequests", reason=Reason.UPSTREAM_RATE_LIMITED, status=429
    )
    [outcome] = await parts.run("v1")
    assert outcome.error == "toomanyrequests"


@dataclass
class Warmed:
    """A cache port that notes what it was asked to fetch."""

    digests: list[Digest] = field(default_factory=list)

    async def refresh(self) -> bool:
        return True

    async def status(self) -> CacheStatus:
        return CacheStatus(0, 0, None, 0, 0)

    async def warm(
        self,
        connection: Connection,
        repository: Repository,
        digest: Digest,
        size: int,
        *,
        fetch: bool = True,
    ) -> WarmResult:
        self.digests.append(digest)
        return WarmResult(digest, size, cached=False, error="down")

    async def verify(self) -> tuple[int, int]:
        return (0, 0)

    async def prune(self) -> tuple[int, int]:
        return (0, 0)


async def test_warming_fetches_each_blob_once_and_its_failure_fails_nothing(
    parts: Importing,
) -> None:
    cache = Warmed()
    parts.registry.add_image(ONE, "v1", "same")
    parts.importer = Importer(
        connections=OneConnection(Connection("c1", HOST, "static")),
        registry=parts.registry,
        publisher=parts.signed.publisher,
        manifests=parts.manifests,
        records=parts.records,
        cache=cache,
    )
    outcomes = await parts.run("v1", "same", "gone", warm=True)
    assert [outcome.status for outcome in outcomes] == ["imported", "imported", "failed"]
    blobs = {Digest.of(b) for p in ONE.platforms for b in (ONE.config(p), *ONE.layers(p))}
    assert sorted(cache.digests) == sorted(blobs)
    assert [outcome.warmed for outcome in outcomes] == [False, False, None]
    steps = [event for event in parts.events if event.get("step") == "warming"]
    assert [(step["tag"], step["done"], step["total"]) for step in steps] == [
        *(("v1", done, len(blobs)) for done in range(len(blobs) + 1)),
        ("same", 0, 0),
    ]


async def test_layers_that_tags_share_are_checked_once(parts: Importing) -> None:
    parts.registry.add_image(ONE, "a")
    parts.registry.add_image(TWO, "b")
    await parts.run("a")
    parts.registry.asked.clear()
    tags = ("a", "b")
    await parts.run(*tags)
    shared = Digest.of(ONE.layers("linux/arm64")[0])
    assert parts.registry.asked[str(shared)] <= len(tags)
