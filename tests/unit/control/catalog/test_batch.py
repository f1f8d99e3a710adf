"""Signing a batch while others sign too: planned anew, nothing lost, the rest unharmed."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from facade.control.catalog.importer import Importer
from facade.control.catalog.planning import Status
from facade.control.signing.publisher import Publisher
from facade.oci.digest import Digest
from facade.target import SignedTarget
from tests.support.importing import CONNECTION, Importing, importing
from tests.support.manifests import PlainImage
from tests.support.memory_registry import OneConnection
from tests.support.signing import make_target

ONE, TWO = PlainImage("one"), PlainImage("two")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Importing]:
    async with importing(tmp_path) as parts:
        parts.registry.add_image(ONE, "v1", "v3")
        parts.registry.add_image(TWO, "v2")
        yield parts


@dataclass
class Overtaken:
    """A publisher before whose every publication somebody else signs `other` of what was meant."""

    inner: Publisher
    other: Callable[[SignedTarget], SignedTarget]
    calls: int = 0

    def fleets(self) -> tuple[str, ...]:
        return self.inner.fleets()

    def targets(self, fleet: str) -> Any:
        return self.inner.targets(fleet)

    def publish(
        self, fleet: str, *, add: tuple[SignedTarget, ...] = (), remove: tuple[str, ...] = ()
    ) -> Any:
        self.calls += 1
        self.inner.publish(fleet, add=[self.other(add[0])])
        return self.inner.publish(fleet, add=add, remove=remove)


def overtake(parts: Importing, other: Callable[[SignedTarget], SignedTarget]) -> Overtaken:
    publisher = Overtaken(parts.signed.publisher, other)
    parts.importer = Importer(
        connections=OneConnection(CONNECTION),
        registry=parts.registry,
        publisher=publisher,  # type: ignore[arg-type]  # tuples where sequences are promised
        manifests=parts.manifests,
        records=parts.records,
    )
    return publisher


async def test_overtaken_by_the_same_image_it_is_there(parts: Importing) -> None:
    publisher = overtake(parts, lambda target: target)
    outcomes = await parts.run("v1", "v2")
    assert [outcome.status for outcome in outcomes] == [Status.IMPORTED, Status.IMPORTED]
    assert publisher.calls == 1
    assert set(parts.signed.publisher.targets("dev")) == {"dev/app/v1", "dev/app/v2"}


async def test_overtaken_by_another_image_under_its_tag_it_is_planned_anew(
    parts: Importing,
) -> None:
    first = True

    def other(target: SignedTarget) -> SignedTarget:
        nonlocal first
        if not first:
            return make_target("unrelated", name="unrelated")
        first = False
        return replace(target, digest=Digest.of(b"other"), length=5)

    publisher = overtake(parts, other)
    outcomes = await parts.run("v1", "v2")
    assert publisher.calls == 2
    assert [(outcome.status, outcome.target) for outcome in outcomes] == [
        (Status.MOVED, f"dev/app/v1-{Digest.of(ONE.index).hex[:12]}"),
        (Status.IMPORTED, "dev/app/v2"),
    ]
    assert parts.signed.publisher.targets("dev")["dev/app/v1"].digest == Digest.of(b"other")


async def test_overtaken_again_and_again_it_gives_up_in_words(parts: Importing) -> None:
    count = 0

    def other(target: SignedTarget) -> SignedTarget:
        nonlocal count
        count += 1
        return replace(target, digest=Digest.of(str(count).encode()), length=5)

    publisher = overtake(parts, other)
    outcomes = await parts.run("v1", "v2")
    assert publisher.calls == 4, "each tag's own name, and the one beside it"
    assert {outcome.status for outcome in outcomes} == {Status.FAILED}
    assert all("--version" in str(outcome.error) for outcome in outcomes)
    assert await parts.records.of_name("dev", "app") == ()


async def test_a_conflict_of_one_tag_is_its_own(parts: Importing) -> None:
    await parts.run("v1")
    outcomes = await parts.run("v1", "v2", platforms=("linux/arm64",))
    assert [outcome.status for outcome in outcomes] == [Status.FAILED, Status.IMPORTED]
    assert outcomes[0].digest == Digest.of(ONE.index)
    assert outcomes[0].target is None
    assert "signed for all platforms" in str(outcomes[0].error)
    [_, second] = await parts.records.of_name("dev", "app")
    assert second.version == "v2"
