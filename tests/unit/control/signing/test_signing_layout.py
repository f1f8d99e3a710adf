"""File names, lifetimes and target files."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.control.signing import layout
from facade.errors import Invalid
from facade.oci.digest import Digest
from tests.support.clock import FakeClock
from tests.support.signing import make_target

roles = st.sampled_from(
    ["root", "targets", "snapshot", "dev", "a.b", "1.root", "7", "json", "x.json"]
)


@given(roles, st.integers(1, 10**6))
def test_parse_of_file_name_is_the_identity(role: str, version: int) -> None:
    assert layout.parse_file_name(layout.file_name(role, version)) == (role, version)


@pytest.mark.parametrize(
    "name",
    ["timestamp.json", "lock", "0.dev.json", "01.dev.json", "1.json", "dev.json", "-1.x.json", ""],
)
def test_other_names_are_nobodys(name: str) -> None:
    assert layout.parse_file_name(name) is None


def test_timestamp_alone_has_no_version() -> None:
    assert layout.file_name("timestamp", 7) == "timestamp.json"


@pytest.mark.parametrize(
    ("role", "days"),
    [("root", 365), ("targets", 365), ("dev", 90), ("snapshot", 7), ("timestamp", 1)],
)
def test_lifetimes(role: str, days: int) -> None:
    clock = FakeClock(1_000_000.75)
    assert layout.lifetime(role) == timedelta(days=days)
    assert layout.expiry(role, clock).timestamp() == 1_000_000 + days * 86_400


def test_a_target_file_reads_back_as_its_target() -> None:
    target = make_target()
    assert layout.signed_target(target.path, layout.target_file(target)) == target


def test_a_sha512_digest_cannot_be_signed() -> None:
    target = make_target()
    other = type(target)(
        **{name: getattr(target, name) for name in target.__slots__ if name != "digest"},
        digest=Digest.of(b"x", "sha512"),
    )
    with pytest.raises(Invalid, match="sha256"):
        layout.target_file(other)


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("dev/app/v1", True),
        ("dev/app", False),
        ("dev/app/v1/x", False),
        ("devil/app/v1", False),
        ("other/app/v1", False),
        ("dev//v1", True),  # which is why every target path is parsed by our grammar, too
    ],
)
def test_a_delegation_covers_its_fleets_paths_only(path: str, inside: bool) -> None:
    from facade.control.signing.keys import new_key

    role = layout.delegation("dev", new_key("ed25519").public_key)
    assert role.is_delegated_path(path) is inside
    assert role.terminating
