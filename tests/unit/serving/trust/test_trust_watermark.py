"""The highest time ever seen is remembered."""

from pathlib import Path

import pytest

from facade.errors import Unavailable
from facade.reasons import Reason
from facade.serving.trust.watermark import FILE_NAME, TOLERANCE_SECONDS, Watermark
from tests.support.clock import FakeClock


def test_small_corrections_pass_and_larger_ones_do_not(tmp_path: Path) -> None:
    clock = FakeClock()
    mark = Watermark(tmp_path / FILE_NAME, clock)
    now = mark.check()
    clock.shift(-TOLERANCE_SECONDS)
    assert mark.check() == now - TOLERANCE_SECONDS
    clock.shift(-1)
    with pytest.raises(Unavailable, match="301 seconds behind") as caught:
        mark.check()
    assert caught.value.reason is Reason.CLOCK_SET_BACK


def test_it_is_remembered_across_restarts(tmp_path: Path) -> None:
    clock = FakeClock()
    mark = Watermark(tmp_path / FILE_NAME, clock)
    mark.check()
    mark.persist()
    clock.shift(-3600)
    with pytest.raises(Unavailable):
        Watermark(tmp_path / FILE_NAME, clock).check()


@pytest.mark.parametrize("text", ["", "tomorrow", "nan", "inf", "é"])
def test_an_unreadable_file_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert Watermark(tmp_path / FILE_NAME, FakeClock()).check()
