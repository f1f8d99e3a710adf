"""Readiness: what takes a node out of the balancer and what does not."""

from collections.abc import Iterable

import pytest

from facade.errors import Invalid
from facade.observability.health import Check, Finding, Health, Severity, decode_findings


def finds(*findings: Finding) -> Check:
    return lambda: findings


def test_nothing_wrong_is_ok() -> None:
    assert Health([("metadata", finds())]).readiness().status == "ok"


def test_degraded_still_serves() -> None:
    health = Health([("upstream", finds(Finding(Severity.DEGRADED, "ghcr.io is down")))])
    readiness = health.readiness()
    assert (readiness.status, readiness.ready) == ("degraded", True)
    assert readiness.reasons == ("ghcr.io is down",)


def test_one_unready_finding_outweighs_the_rest_and_comes_first() -> None:
    health = Health(
        [
            ("a", finds(Finding(Severity.DEGRADED, "slow"))),
            ("b", finds(Finding(Severity.UNREADY, "no valid metadata"))),
        ]
    )
    readiness = health.readiness()
    assert not readiness.ready
    assert readiness.reasons == ("no valid metadata", "slow")


def test_a_check_that_raises_is_no_health() -> None:
    def broken() -> Iterable[Finding]:
        raise RuntimeError

    readiness = Health([("metadata", broken)]).readiness()
    assert readiness.status == "degraded"
    assert "metadata" in readiness.reasons[0]


def test_draining_is_unready() -> None:
    health = Health([])
    health.drain()
    assert health.readiness().reasons == ("draining",)
    assert not health.readiness().ready


@pytest.mark.parametrize("data", [b"", b"1", b"[1]", b'[["fine", "x"]]', b"[" * 100_000])
def test_what_is_no_finding_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        decode_findings(data)
