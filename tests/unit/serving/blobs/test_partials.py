"""Partials together stay within their bound; what is left of broken transfers makes room first."""

import os
from pathlib import Path

import pytest

from facade.errors import Unavailable
from facade.serving.blobs.layout import give_back, reserve
from facade.serving.blobs.partials import Partials, lock_partial


def leave(folder: Path, name: str, size: int, at: float) -> Path:
    path = folder / f"{name}.partial"
    path.write_bytes(bytes(size))
    os.utime(path, (at, at))
    return path


def test_what_was_left_before_counts(tmp_path: Path) -> None:
    leave(tmp_path, "a", 30, 1)
    (tmp_path / "draft.tags").write_bytes(bytes(1000))
    assert Partials(tmp_path).count() == 30


def test_a_reservation_counts_whole_and_then_what_is_left_of_it(tmp_path: Path) -> None:
    partials = Partials(tmp_path)
    path = leave(tmp_path, "a", 30, 1)
    partials.reserve(path, 100)
    assert partials.count() == 100
    partials.release(path)
    assert partials.count() == 30
    partials.reserve(path, 100)
    assert partials.count() == 100
    path.unlink()
    partials.release(path)
    assert partials.count() == 0


def test_the_oldest_leftovers_make_room_unless_somebody_took_them_up(tmp_path: Path) -> None:
    newest, oldest, busy = (
        leave(tmp_path, name, 30, at) for name, at in [("a", 3), ("b", 1), ("c", 0)]
    )
    partials = Partials(tmp_path)
    partials.limit(100)
    fd = lock_partial(busy)
    partials.reserve(tmp_path / "new.partial", 40)
    os.close(fd)
    assert (newest.exists(), oldest.exists(), busy.exists()) == (True, False, True)
    assert partials.count() == 100


def test_what_does_not_fit_is_refused_and_removed(tmp_path: Path) -> None:
    one, other = tmp_path / "one.partial", leave(tmp_path, "other", 5, 1)
    kept = leave(tmp_path, "kept", 10, 1)
    partials = Partials(tmp_path)
    partials.limit(100)
    with pytest.raises(Unavailable, match="max_bytes"):
        partials.reserve(other, 101)
    assert not other.exists()
    assert kept.exists()  # to delete it would not have helped
    partials.reserve(one, 60)
    partials.reserve(leave(tmp_path, "fits", 0, 1), 40)
    with pytest.raises(Unavailable):
        partials.reserve(tmp_path / "more.partial", 1)
    assert partials.count() == 100


def test_what_a_dead_writer_had_set_aside_counts(tmp_path: Path) -> None:
    path = leave(tmp_path, "a", 30, 1)
    with path.open("r+b") as file:
        reserve(file.fileno(), 1 << 20)
        assert Partials(tmp_path).count() == 1 << 20
        give_back(file.fileno())
        assert Partials(tmp_path).count() == 30


def test_drafts_of_a_dead_process_are_swept_too(tmp_path: Path) -> None:
    draft, path = tmp_path / "x.tags", leave(tmp_path, "a", 30, 0)
    draft.write_bytes(b"x")
    os.utime(draft, (0, 0))
    partials = Partials(tmp_path)
    assert partials.sweep(older_than=1000.0) == 2
    assert not draft.exists()
    assert not path.exists()
    assert partials.count() == 0
