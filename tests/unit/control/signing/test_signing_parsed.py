"""Roles that were read once: given again while nothing changed, never when something did."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from facade.control.signing.parsed import ParsedRoles
from facade.control.signing.repository import Current, MetadataRepository
from facade.errors import NotFound
from facade.target import SignedTarget
from tests.support.signing import SignedRepository, make_repository, make_target


def test_a_role_is_read_again_when_it_changed_and_not_before(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    first, second = make_target("v1"), make_target("v2")
    repo.publisher.publish("dev", add=[first])
    reader = repo.reopened()
    known = reader.targets("dev")
    assert reader.targets("dev") is known
    repo.publisher.publish("dev", add=[second])
    assert reader.targets("dev") == {first.path: first, second.path: second}
    assert known == {first.path: first}
    with pytest.raises(NotFound):
        reader.targets("other")
    with pytest.raises(TypeError):
        known["dev/app/v9"] = first  # type: ignore[index]


def test_resigning_with_another_expiry_is_another_role(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    repo.publisher.publish("dev", add=[make_target()])
    known = repo.publisher.targets("dev")
    repo.publisher.advance(1)
    again = repo.publisher.targets("dev")
    assert again is not known
    assert again == known


def _current(repo: SignedRepository) -> Current:
    return MetadataRepository(repo.folder, repo.clock).current()


def test_what_is_kept_is_bounded_by_targets(tmp_path: Path) -> None:
    repo = make_repository(tmp_path, "a", "b", "c")
    current = _current(repo)
    roles, reads = ParsedRoles(max_targets=5), list[str]()

    def read(fleet: str, count: int) -> None:
        def load() -> Mapping[str, SignedTarget]:
            reads.append(fleet)
            found = [make_target(f"v{number}", fleet=fleet) for number in range(count)]
            return {target.path: target for target in found}

        assert len(roles.get(current, fleet, load)) == count

    read("a", 2)
    read("b", 2)
    read("a", 2)
    assert reads == ["a", "b"]
    read("c", 3)  # b has been unused the longest
    read("a", 2)
    assert reads == ["a", "b", "c"]
    read("b", 2)
    assert reads[3:] == ["b"]
    read("b", 2)
    assert reads[4:] == []


def test_a_failed_read_is_not_remembered(tmp_path: Path) -> None:
    repo = make_repository(tmp_path)
    current, roles = _current(repo), ParsedRoles()

    def broken() -> Mapping[str, SignedTarget]:
        raise NotFound("gone")

    with pytest.raises(NotFound):
        roles.get(current, "dev", broken)
    assert roles.get(current, "dev", dict) == {}
