"""In which order the bench measures, and what is done to the facade before."""

from typing import cast

import pytest

from tests.bench.__main__ import _run
from tests.bench.growth import growth_loads
from tests.bench.loads import Load, each
from tests.bench.rounds import OURS
from tests.bench.stand import PLAIN, Participant, Stand


class Bare:
    """A stand with nothing on it: its participants are their names."""

    def __init__(self, *names: str) -> None:
        self.participants = {name: name for name in names}


def test_what_grows_the_facade_is_done_once_when_all_other_rounds_are_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: list[str] = []

    def load(name: str, *peers: str, grows: bool = False, rounds: int = 100) -> Load:
        def measure(_: Stand, who: Participant) -> float:
            done.append(f"{name} {who}")
            return float(len(done))

        grow = (lambda _: done.append(f"grow {name}")) if grows else None
        return Load(name, "s", peers, each(measure), {}, rounds, grow=grow)

    series = _run(
        cast("Stand", Bare(OURS, PLAIN)),
        [load("a", PLAIN, grows=True, rounds=3), load("b"), load("c", grows=True, rounds=1)],
        2,
    )
    assert done == [
        *("b facade", "b facade"),
        *(
            "grow a",
            f"a {OURS}",
            f"a {PLAIN}",
            f"a {PLAIN}",
            f"a {OURS}",
            f"a {OURS}",
            f"a {PLAIN}",
        ),
        *("grow c", "c facade"),
    ]
    assert [len(each.figures[OURS]) for each in series] == [3, 2, 1]
    assert "round 3 a" in capsys.readouterr().out


def test_within_a_round_nobody_is_always_first_and_a_figure_is_the_mean_of_ones_own() -> None:
    done: list[str] = []

    def measure(_: Stand, who: Participant) -> float:
        done.append(str(who))
        return float(len(done))

    series = _run(
        cast("Stand", Bare(OURS, PLAIN)), [Load("a", "s", (PLAIN,), each(measure, turns=2), {})], 2
    )
    assert done == [OURS, PLAIN, PLAIN, OURS, PLAIN, OURS, OURS, PLAIN]
    assert series[0].figures == {OURS: [2.5, 6.5], PLAIN: [2.5, 6.5]}


def test_growth_is_measured_in_pairs_however_few_rounds_are_asked_for() -> None:
    pairs = [load for load in growth_loads() if PLAIN in load.targets]
    assert len(pairs) == 2
    assert all(load.rounds >= 3 and not load.costly for load in pairs)
    assert all(PLAIN in load.peers for load in pairs)
