"""A short run of every fuzz harness: seeds, former findings, and mutations that are the same each time.

`make fuzz` is the real thing. Here: up to `MUTATIONS` inputs each, then libFuzzer itself on one harness, so that
what `make fuzz` starts is known to work and to notice.
"""

import random
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz.__main__ import run
from tests.fuzz.all import ROOMS, room
from tests.fuzz.harness import FINDINGS, Harness

NAMES = list(ROOMS)
MUTATIONS = 1500
"""For each harness, unless they take more than `CPU_SECONDS`; never fewer than `FEWEST`."""
CPU_SECONDS = 0.1
FEWEST = 40
MAX_PEAK_BYTES = 64 * 1024 * 1024
MAX_INPUT_SECONDS = 2.0
"""Of the CPU, which a busy machine does not change."""


@pytest.fixture(scope="module")
def known() -> Mapping[str, Harness]:
    return {name: each for name in set(ROOMS.values()) for name, each in room(name).items()}


def mutations(harness: Harness) -> Iterator[bytes]:
    """Without end, from the seeds; always the same ones."""
    dice = random.Random(harness.name)
    while True:
        data = bytearray(dice.choice(harness.seeds))
        for _ in range(dice.randint(1, 4)):
            at = dice.randint(0, len(data))
            match dice.randrange(6):
                case 0:
                    data[at : at + 1] = bytes([dice.randrange(256)])
                case 1:
                    data[at:at] = dice.choice([*harness.words, b"\0", b"\xff"])
                case 2:
                    del data[at : at + dice.randint(1, 20)]
                case 3:
                    data[at:at] = data[at : at + dice.randint(1, 60)] * dice.randint(1, 40)
                case 4:
                    data[at:at] = dice.choice(harness.seeds)[at : at + dice.randint(1, 60)]
                case _:
                    data[at:at] = str(dice.choice([0, -1, 2**63, 10**25, 10**400])).encode()
        yield bytes(data[: 4 * harness.max_bytes])


@pytest.mark.parametrize("name", NAMES)
def test_mutated_seeds_break_nothing(name: str, known: Mapping[str, Harness]) -> None:
    harness = known[name]
    for seed in harness.seeds:
        harness.run(seed)
    until = time.process_time() + CPU_SECONDS
    for count, data in enumerate(islice(mutations(harness), MUTATIONS)):
        run_timed(harness, data)
        if count >= FEWEST and time.process_time() > until:
            return


def run_timed(harness: Harness, data: bytes) -> None:
    """Try one input, which must not take long."""
    begun = time.thread_time()
    try:
        harness.run(data)
    except Exception as error:
        error.add_note(f"input: {data!r}")
        raise
    assert time.thread_time() - begun < MAX_INPUT_SECONDS, data


@pytest.mark.parametrize("name", NAMES)
def test_no_input_makes_much_of_little(name: str, known: Mapping[str, Harness]) -> None:
    harness = known[name]
    big = [(seed or b"x") * (harness.max_bytes // max(1, len(seed)) + 1) for seed in harness.seeds]
    big += [word * (harness.max_bytes // len(word)) for word in harness.words]
    tracemalloc.start()
    try:
        for data in [*big, *harness.seeds]:
            run_timed(harness, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_PEAK_BYTES


FOUND = sorted(path for path in FINDINGS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FOUND, ids=[f"{p.parent.name}-{p.name[:24]}" for p in FOUND])
def test_what_was_found_once_stays_repaired(path: Path, known: Mapping[str, Harness]) -> None:
    known[path.parent.name].run(path.read_bytes())


@pytest.mark.slow
def test_libfuzzer_runs_a_harness(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("atheris", reason="no wheel for this Python or machine")
    corpus = tmp_path / "corpus"
    assert run("ranges", corpus, ["-runs=3000", "-seed=7"], tmp_path / "findings")
    assert "3000 inputs" in capfd.readouterr().out
    assert len(list(corpus.iterdir())) > 3  # coverage was seen, or nothing would be kept


def test_every_harness_has_seeds_that_get_through(known: Mapping[str, Harness]) -> None:
    """A harness whose seeds are all refused at the door would fuzz the door alone."""
    for harness in known.values():
        harness.call(harness.seeds[0])


def test_the_table_of_rooms_is_right(known: Mapping[str, Harness]) -> None:
    files = {
        path.stem for path in FINDINGS.parent.glob("*.py") if "\ndef harnesses(" in path.read_text()
    }
    assert files == set(ROOMS.values())
    assert set(known) == set(ROOMS)
    assert {path.name for path in FINDINGS.iterdir()} <= set(ROOMS)
