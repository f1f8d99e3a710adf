"""The circuit: when it opens, who probes, what closes it."""

import pytest

from facade.errors import Upstream
from facade.reasons import Reason
from facade.upstream.circuit import Circuit, CircuitPolicy

POLICY = CircuitPolicy(failures=3, base_seconds=1.0, cap_seconds=4.0, chance=lambda: 1.0)
DOWN = Upstream("down", reason=Reason.UPSTREAM_UNREACHABLE)
BUSY = Upstream("busy", reason=Reason.UPSTREAM_RATE_LIMITED, status=429, retry_after=7.0)


def opened(trouble: Upstream = BUSY, now: float = 100.0) -> Circuit:
    circuit = Circuit(CircuitPolicy(failures=1, chance=lambda: 1.0))
    assert circuit.failed(trouble, now, probe=circuit.enter())
    return circuit


def test_several_failures_in_a_row_open_it() -> None:
    circuit = Circuit(POLICY)
    results = [circuit.failed(DOWN, 100.0, probe=circuit.enter()) for _ in range(3)]
    assert results == [False, False, True]
    assert circuit.wait(100.0) == 1.0


def test_an_answer_in_between_starts_the_count_anew() -> None:
    circuit = Circuit(POLICY)
    for _ in range(5):
        for _ in range(2):
            assert not circuit.failed(DOWN, 100.0, probe=circuit.enter())
        assert not circuit.succeeded(probe=circuit.enter())
    assert circuit.wait(100.0) == 0.0


def test_one_rate_limit_opens_it_for_as_long_as_it_says() -> None:
    circuit = Circuit(POLICY)
    assert circuit.failed(BUSY, 100.0, probe=circuit.enter())
    assert circuit.wait(100.0) == 7.0
    assert circuit.wait(107.0) == 0.0


def test_a_day_of_retry_after_is_probed_within_the_hour() -> None:
    circuit = opened(
        Upstream("busy", reason=Reason.UPSTREAM_RATE_LIMITED, status=429, retry_after=86400.0)
    )
    assert circuit.wait(100.0) == 3600.0


def test_one_probe_at_a_time() -> None:
    circuit = opened()
    assert circuit.wait(107.0) == 0.0
    assert circuit.enter()
    assert circuit.wait(107.0) is None
    assert circuit.wait(1000.0) is None
    circuit.left(probe=True)
    assert circuit.wait(107.0) == 0.0


def test_the_first_probe_that_is_answered_closes_it() -> None:
    circuit = opened()
    assert circuit.succeeded(probe=circuit.enter())
    assert circuit.wait(107.0) == 0.0
    assert not circuit.enter()
    assert circuit.trouble is None


def test_probes_that_fail_come_less_and_less_often() -> None:
    circuit = Circuit(POLICY)
    now, pauses = 100.0, []
    for _ in range(3):
        circuit.failed(DOWN, now, probe=circuit.enter())
    for _ in range(4):
        wait = circuit.wait(now)
        assert wait is not None
        pauses.append(wait)
        now += wait
        assert not circuit.failed(DOWN, now, probe=circuit.enter())
    assert pauses == [1.0, 2.0, 4.0, 4.0]


def test_answers_to_what_went_out_before_it_opened_do_not_close_it() -> None:
    circuit = Circuit(POLICY)
    earlier = circuit.enter()
    circuit.failed(BUSY, 100.0, probe=circuit.enter())
    assert not circuit.succeeded(probe=earlier)
    assert circuit.wait(100.0) == 7.0


def test_a_later_word_on_when_to_come_back_counts() -> None:
    circuit = opened()
    later = Upstream("busy", reason=Reason.UPSTREAM_RATE_LIMITED, status=429, retry_after=60.0)
    assert not circuit.failed(later, 101.0, probe=False)
    assert circuit.wait(101.0) == 60.0
    assert not circuit.failed(DOWN, 102.0, probe=False)
    assert circuit.wait(101.0) == 60.0


@pytest.mark.parametrize("trouble", [BUSY, DOWN])
def test_who_cannot_wait_is_told_why_and_when(trouble: Upstream) -> None:
    refusal = opened(trouble).refusal(100.0)
    assert (refusal.reason, refusal.status) == (trouble.reason, trouble.status)
    assert refusal.retry_after == max(1.0, trouble.retry_after or 0.0)
    assert refusal is not trouble


def test_pauses_are_jittered() -> None:
    pauses = set()
    for chance in (0.0, 0.5, 0.99):
        circuit = Circuit(CircuitPolicy(failures=1, base_seconds=2.0, chance=lambda c=chance: c))  # type: ignore[misc]
        circuit.failed(DOWN, 0.0, probe=circuit.enter())
        pauses.add(circuit.wait(0.0))
    assert pauses == {1.0, 1.5, 1.99}
