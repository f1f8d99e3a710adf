"""Sealed values open in their own place only; rings are private and rotate."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facade.control.connections.sealing import KeyRing, Sealer
from facade.errors import Integrity, Invalid, Unavailable

RING = KeyRing.generate()
NAMES = st.lists(st.text(max_size=20), min_size=1, max_size=4).map(tuple)


@given(text=st.text(), bound=NAMES)
def test_what_was_sealed_opens(text: str, bound: tuple[str, ...]) -> None:
    sealer = Sealer(RING, "connections")
    assert sealer.open(sealer.seal(text, bound), bound) == text


@given(bound=NAMES, other=NAMES)
def test_bound_to_other_names_it_does_not_open(
    bound: tuple[str, ...], other: tuple[str, ...]
) -> None:
    sealer = Sealer(RING, "connections")
    sealed = sealer.seal("canary", bound)
    if bound != other:
        with pytest.raises(Integrity):
            sealer.open(sealed, other)


def test_names_are_not_merely_joined() -> None:
    sealer = Sealer(RING, "connections")
    with pytest.raises(Integrity):
        sealer.open(sealer.seal("canary", ("a", "bc")), ("ab", "c"))


def test_a_change_of_any_character_is_noticed() -> None:
    sealer = Sealer(RING, "connections")
    sealed = sealer.seal("canary", ("row",))
    for place in range(len(sealed)):
        changed = sealed[:place] + ("A" if sealed[place] != "A" else "B") + sealed[place + 1 :]
        with pytest.raises((Integrity, Unavailable)):
            sealer.open(changed, ("row",))


@pytest.mark.parametrize("text", ["", ".", "f1", "f1.", "f1.x.y", "v0.a.b", "f1..", "ä.ö.ü"])
def test_what_is_no_envelope_raises_nothing_else(text: str) -> None:
    with pytest.raises((Integrity, Unavailable)):
        Sealer(RING, "connections").open(text, ("row",))


def test_one_purpose_cannot_open_anothers() -> None:
    sealed = Sealer(RING, "tokens").seal("canary", ("row",))
    with pytest.raises(Integrity):
        Sealer(RING, "connections").open(sealed, ("row",))


def test_the_same_text_is_never_sealed_alike() -> None:
    sealer = Sealer(RING, "connections")
    assert sealer.seal("canary", ("row",)) != sealer.seal("canary", ("row",))


def test_after_rotation_old_opens_and_new_is_primary_and_the_old_key_can_go() -> None:
    old = Sealer(RING, "connections")
    both = RING.with_fresh_primary()
    sealer = Sealer(both, "connections")
    sealed = old.seal("canary", ("row",))
    assert not sealer.is_current(sealed)
    resealed = sealer.seal(sealer.open(sealed, ("row",)), ("row",))
    assert sealer.is_current(resealed)
    last = Sealer(both.only_primary(), "connections")
    assert last.open(resealed, ("row",)) == "canary"
    with pytest.raises(Unavailable, match="not in the key ring"):
        last.open(sealed, ("row",))


def test_a_ring_is_saved_privately_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    RING.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyRing.load(path).format() == RING.format()
    assert os.listdir(tmp_path) == ["sealing.key"]  # noqa: PTH208 - hidden files too


def test_a_ring_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    RING.save(path)
    path.chmod(0o640)
    with pytest.raises(Invalid, match="chmod 600"):
        KeyRing.load(path)


def test_a_ring_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "sealing.key").mkdir()
    with pytest.raises(Unavailable, match="cannot be written"):
        RING.save(tmp_path / "sealing.key")
    assert [path.name for path in tmp_path.iterdir()] == ["sealing.key"]


def test_a_ring_that_is_missing_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        KeyRing.load(tmp_path / "none")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"primary": "a", "keys": {}}',
        '{"primary": "a", "keys": {"a": "c2hvcnQ="}}',
        '{"primary": "a", "keys": {"a": "canary!"}}',
        '{"primary": "a", "keys": {"a": 7}}',
        '{"primary": "a.b", "keys": {"a.b": "' + "A" * 43 + '="}}',
    ],
)
def test_what_is_no_ring_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        KeyRing.parse(text)
    assert "canary" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_ring_does_not_show_its_keys() -> None:
    shown = f"{RING!r} {RING}"
    assert RING.format() not in shown
    key = RING.key(RING.primary)
    assert key is not None
    assert key.hex() not in shown
    assert repr(key) not in shown


def test_a_sealer_does_not_pickle() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Sealer(RING, "connections"))


def test_saving_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    RING.save(link)
    assert link.is_symlink()
    assert KeyRing.load(file).ids == KeyRing.load(link).ids == RING.ids
