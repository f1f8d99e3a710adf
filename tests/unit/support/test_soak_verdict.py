"""The soak's verdict notices what it is there for."""

from dataclasses import replace

import pytest

from tests.soak.ledger import GRACE_SECONDS, Ledger, Standing, judge_refusal
from tests.soak.verdict import MIN_SERVED, Seen, checks
from tests.soak.watch import MAX_GROWTH_KIB, Open, Sample, fewest, growth_kib

PARENT, WORKER = 10, 11


def sample(at: int, parent: int, worker: int) -> Sample:
    return Sample(float(at), {PARENT: parent, WORKER: worker}, 40, 0.0)


def good() -> Seen:
    ledger = Ledger()
    for _ in range(MIN_SERVED):
        ledger.served("blobs", 10)
    return Seen(
        ledger=ledger,
        samples=[sample(at, 80_000, 100_000 + at % 3) for at in range(100)],
        rest_before={PARENT: Open(other=12), WORKER: Open(other=20)},
        rest_after={PARENT: Open(other=12), WORKER: Open(cached=60, other=22)},
        metrics={"facade_integrity_failures_total": 0.0, "facade_streams_in_flight": 0.0},
        internal=0.0,
        healed=(12, 12),
        errors={},
    )


def failing(seen: Seen) -> list[str]:
    return [check.name for check in checks(seen) if not check.holds]


def test_a_good_soak_holds() -> None:
    assert failing(good()) == []


LEAK = [sample(at, 80_000 - at * 1_000, 100_000 + at * MAX_GROWTH_KIB // 40) for at in range(100)]
"""One process grows; what another gives back does not hide it."""
BAD = {
    "memory": {"samples": LEAK},
    "descriptors": {"rest_after": {PARENT: Open(other=2), WORKER: Open(other=28)}},
    "processes": {"rest_after": {PARENT: Open(other=12), 12: Open(other=5)}},
    "nothing left behind": {"metrics": {"facade_transfers_in_flight": 1.0}},
    "integrity": {"metrics": {"facade_integrity_failures_total": 1.0}},
    "no fault of its own": {"internal": 1.0},
    "records": {"metrics": {"facade_reports_dropped_total": 3.0}},
    "log": {"errors": {"request_failed": 1}},
    "healed": {"healed": (11, 12)},
    "load": {"ledger": Ledger()},
}


@pytest.mark.parametrize("name", BAD)
def test_each_check_notices(name: str) -> None:
    assert failing(replace(good(), **BAD[name])) == [name]  # type: ignore[arg-type]  # a table of fields


def test_files_that_are_gone_and_still_open_are_noticed() -> None:
    rest = {PARENT: Open(other=12), WORKER: Open(gone=1, other=20)}
    assert failing(replace(good(), rest_after=rest)) == ["descriptors"]


def test_the_fewest_of_several_looks_is_each_process_s_own() -> None:
    looks = [
        {PARENT: Open(other=9), WORKER: Open(other=30)},
        {PARENT: Open(other=12), WORKER: Open(other=20)},
    ]
    assert fewest(looks) == {PARENT: Open(other=9), WORKER: Open(other=20)}


def test_one_problem_is_enough() -> None:
    seen = good()
    seen.ledger.problem("kiosk-1: wrong bytes passed for whole")
    assert failing(seen) == ["every pull done or refused with its reason"]


def test_warm_up_is_not_growth() -> None:
    samples = [sample(at, 80_000, min(50_000 + at * 4_000, 120_000)) for at in range(100)]
    assert growth_kib(samples) == pytest.approx({PARENT: 0, WORKER: 0})


def test_a_refusal_needs_its_cause() -> None:
    standing = {"not-signed": Standing(), "device-revoked": Standing(5.0)}
    assert judge_refusal(standing, "upstream-rate-limited")
    assert judge_refusal(standing, "device-revoked")
    for reason in ("not-signed", "integrity", "internal", "closure-incomplete", ""):
        assert not judge_refusal(standing, reason)


def test_what_was_withdrawn_is_served_for_a_moment_only() -> None:
    assert Standing().may_be_served(99.0)
    assert Standing(0.0).may_be_served(99.0)  # the change is under way
    assert Standing(50.0).may_be_served(50.0 + GRACE_SECONDS / 2)
    assert not Standing(50.0).may_be_served(50.1 + GRACE_SECONDS)
