"""Under which path an image is signed, decided without any input or output."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.control.catalog.planning import Candidate, Plan, Status, plan
from facade.errors import Conflict, Invalid
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.target import SignedTarget

A, B, C = (Digest.of(text) for text in (b"a", b"b", b"c"))
BASE = Candidate(
    fleet="dev",
    name="app",
    version=None,
    registry=RegistryHost("ghcr.io"),
    repository=Repository("org/app"),
    tag="v1",
    digest=A,
    length=10,
    media_type="application/vnd.oci.image.index.v1+json",
)


@dataclass
class Ledger:
    """Signed targets and the history, as successive imports leave them."""

    signed: dict[str, SignedTarget]
    history: list[SignedTarget]

    def run(self, candidate: Candidate) -> Plan:
        made = plan(candidate, self.signed, map(_remembered, self.history))
        if made.add:
            assert made.target.path not in self.signed
            self.signed[made.target.path] = made.target
            self.history.append(made.target)
        return made

    def withdraw(self, path: str) -> None:
        del self.signed[path]


@dataclass(frozen=True)
class _Record:
    version: str
    registry: str
    repository: str
    reference: str
    digest: Digest


def _remembered(target: SignedTarget) -> _Record:
    return _Record(
        *(target.version, str(target.registry), str(target.repository), target.reference),
        target.digest,
    )


@pytest.fixture
def ledger() -> Ledger:
    return Ledger({}, [])


def test_a_new_tag_is_imported_and_then_unchanged(ledger: Ledger) -> None:
    made = ledger.run(BASE)
    assert (made.status, made.target.path, made.target.reference) == (
        Status.IMPORTED,
        "dev/app/v1",
        "v1",
    )
    again = ledger.run(BASE)
    assert (again.status, again.target, again.add) == (Status.UNCHANGED, made.target, False)


def test_a_moved_tag_is_signed_beside_the_old_one(ledger: Ledger) -> None:
    ledger.run(BASE)
    moved = ledger.run(replace(BASE, digest=B))
    assert (moved.status, moved.target.path) == (Status.MOVED, f"dev/app/v1-{B.hex[:12]}")
    assert ledger.signed["dev/app/v1"].digest == A
    assert ledger.run(replace(BASE, digest=B)).status is Status.UNCHANGED
    assert ledger.run(BASE).status is Status.UNCHANGED, "moved back to what is signed"
    assert ledger.run(replace(BASE, digest=C)).target.path == f"dev/app/v1-{C.hex[:12]}"


def test_a_withdrawn_path_never_stands_for_another_image(ledger: Ledger) -> None:
    ledger.run(BASE)
    ledger.withdraw("dev/app/v1")
    moved = ledger.run(replace(BASE, digest=B))
    assert (moved.status, moved.target.version) == (Status.MOVED, f"v1-{B.hex[:12]}")
    assert ledger.run(BASE).target.path == "dev/app/v1", "the same image may come back"
    ledger.withdraw("dev/app/v1")
    with pytest.raises(Conflict, match="before it was withdrawn"):
        ledger.run(replace(BASE, tag="other", digest=C, version="v1"))


def test_a_given_version_is_used_and_never_changed(ledger: Ledger) -> None:
    made = ledger.run(replace(BASE, version="1.0+build"))
    assert made.target.path == "dev/app/1.0+build"
    with pytest.raises(Conflict, match="another image"):
        ledger.run(replace(BASE, version="1.0+build", digest=B))
    second = ledger.run(replace(BASE, version="1.1", digest=B))
    assert (second.status, second.target.version) == (Status.MOVED, "1.1")


def test_a_tag_imported_under_a_version_moves_beside_its_own_name(ledger: Ledger) -> None:
    ledger.run(replace(BASE, version="1.0"))
    moved = ledger.run(replace(BASE, digest=B))
    assert (moved.status, moved.target.version) == (Status.MOVED, f"v1-{B.hex[:12]}")
    assert ledger.run(replace(BASE, digest=B)).status is Status.UNCHANGED


def test_by_digest_the_version_names_it(ledger: Ledger) -> None:
    made = ledger.run(replace(BASE, tag=None))
    assert made.target.version == f"sha256-{A.hex[:12]}"
    assert made.target.reference == str(A)
    assert ledger.run(replace(BASE, tag=None, digest=B)).status is Status.IMPORTED


@pytest.mark.parametrize(
    "other",
    [{"repository": Repository("org/other")}, {"registry": RegistryHost("quay.io")}],
)
def test_one_name_stands_for_one_repository(ledger: Ledger, other: dict[str, object]) -> None:
    ledger.run(BASE)
    stranger = replace(BASE, tag="v2", **other)  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="--name"):
        ledger.run(stranger)
    assert ledger.run(replace(stranger, name="other")).status is Status.IMPORTED
    ledger.withdraw("dev/app/v1")
    assert ledger.run(stranger).status is Status.IMPORTED


def test_other_platforms_or_new_signatures_need_another_version(ledger: Ledger) -> None:
    ledger.run(replace(BASE, platforms=("linux/arm64",)))
    with pytest.raises(Conflict, match=r"signed for linux/arm64, .* --version"):
        ledger.run(BASE)
    ledger.run(replace(BASE, version="2", referrers=(B,)))
    assert ledger.run(replace(BASE, version="2")).status is Status.UNCHANGED
    with pytest.raises(Conflict, match="signatures"):
        ledger.run(replace(BASE, version="2", referrers=(B, C)))


def test_a_tag_of_full_length_still_moves(ledger: Ledger) -> None:
    long = replace(BASE, tag="t" * 128)
    ledger.run(long)
    moved = ledger.run(replace(long, digest=B))
    assert len(moved.target.version) == 128
    assert moved.target.version.endswith(f"-{B.hex[:12]}")


def test_a_tag_that_is_no_version_says_so(ledger: Ledger) -> None:
    with pytest.raises(Invalid, match="version"):
        ledger.run(replace(BASE, tag="a..b"))
    assert ledger.run(replace(BASE, tag="a..b", version="ab")).status is Status.IMPORTED


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["v1", "v2", f"v1-{B.hex[:12]}", None]),
            st.sampled_from([A, B, C]),
            st.sampled_from([None, None, "1.0"]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_no_path_ever_stands_for_two_digests(
    steps: list[tuple[str | None, Digest, str | None, bool]],
) -> None:
    ledger, stood = Ledger({}, []), dict[str, Digest]()
    for tag, digest, version, withdraw in steps:
        candidate = replace(BASE, tag=tag, digest=digest, version=version)
        try:
            made = ledger.run(candidate)
        except Conflict:
            continue
        assert made.target.digest == digest
        assert stood.setdefault(made.target.path, digest) == digest
        assert ledger.run(candidate).status is Status.UNCHANGED
        if withdraw:
            ledger.withdraw(made.target.path)
