"""The bench's arithmetic and what it writes: ratios, targets, table, picture."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.bench.plot import draw
from tests.bench.report import summary, table, write
from tests.bench.rounds import Series, missed


@pytest.fixture
def blobs() -> Series:
    series = Series("cached <blob>", "CPU s/GB", {"nginx": 0.9, "registry": 0.65})
    for ours, nginx, registry in ((1.0, 1.0, 2.0), (0.8, 1.0, 1.6), (3.0, 2.0, 3.0)):
        series.add("facade", ours)
        series.add("nginx", nginx)
        series.add("registry", registry)
    return series


@pytest.fixture
def bound() -> Series:
    series = Series("idle connection", "KiB", {"bound": 40.0})
    series.add("facade", 30.0)
    return series


def test_the_ratio_is_the_median_of_pairs_not_the_ratio_of_medians(blobs: Series) -> None:
    nginx, registry = blobs.verdicts()
    assert (nginx.ratio, nginx.low, nginx.high) == (1.0, 0.8, 1.5)
    assert (registry.ratio, registry.low, registry.high) == (0.5, 0.5, 1.0)


def test_a_target_is_missed_by_the_median(blobs: Series) -> None:
    assert [verdict.against for verdict in missed([blobs])] == ["nginx"]


def test_a_name_that_is_no_participant_bounds_our_own_figure(bound: Series) -> None:
    (verdict,) = bound.verdicts()
    assert (verdict.ratio, verdict.missed) == (30.0, False)
    bound.add("facade", 60.0)
    bound.add("facade", 61.0)
    assert [each.ratio for each in missed([bound])] == [60.0]


def test_figures_without_a_pair_are_an_error(blobs: Series) -> None:
    blobs.add("facade", 1.0)
    with pytest.raises(ValueError, match="shorter"):
        blobs.verdicts()


def test_the_table_says_who_missed_what(blobs: Series, bound: Series) -> None:
    lines = table([blobs, bound]).splitlines()
    assert "| nginx | 1.00 | 1.00 (0.80 to 1.50) | ≤ 0.9 | **missed** |" in lines[2]
    assert lines[3].endswith("| ≤ 0.65 | met |")
    assert lines[4].endswith("| bound |  | 30.00 (30.00 to 30.00) | ≤ 40 | met |")
    assert "cached <blob>, against nginx: 1.00, wanted 0.9" in summary([blobs, bound])
    assert summary([bound]) == "Every target was met."


def test_a_load_without_peers_or_targets_has_its_line() -> None:
    series = Series("memory", "MiB", {})
    series.add("facade", 110.0)
    assert "| memory | MiB | 110 |" in table([series])


def test_the_picture_is_svg_with_a_bar_for_everybody(blobs: Series, bound: Series) -> None:
    root = ET.fromstring(draw([blobs, bound]))
    space = "{http://www.w3.org/2000/svg}"
    bars = [int(bar.attrib["width"]) for bar in root.findall(f"{space}rect")[1:]]
    assert len(bars) == 3  # a plain bound has nobody to be compared with
    assert bars[2] == max(bars)
    assert "cached <blob> (CPU s/GB)" in [text.text for text in root.findall(f"{space}text")]


def test_results_are_written_in_three_forms(tmp_path: Path, blobs: Series) -> None:
    write(tmp_path / "out", [blobs], command="make bench")
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert document["loads"][0]["figures"]["nginx"] == [1.0, 1.0, 2.0]
    assert "processor" in document["machine"]
    assert "**missed**" in (tmp_path / "out" / "results.md").read_text()
    ET.parse(tmp_path / "out" / "results.svg")
