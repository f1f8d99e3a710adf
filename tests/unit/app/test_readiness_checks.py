"""What readiness says about metadata, the server's certificate and revocation lists."""

from dataclasses import dataclass

import pytest

from facade.app.checks import (
    CONTROL_DEGRADED_SECONDS,
    cache_check,
    certificate_check,
    crl_check,
    deny_list_check,
    metadata_check,
)
from facade.observability.health import Severity
from facade.reasons import Reason
from facade.serving.identity.revocation import Crl
from facade.serving.trust.refresher import TrustStatus

DAY = 24 * 3600.0
NOW = 1_800_000_000.0


@dataclass
class Material:
    ends: float = NOW + DAY
    lists: tuple[Crl, ...] = ()

    def server_not_after(self) -> float:
        return self.ends

    def crls(self) -> tuple[Crl, ...]:
        return self.lists


@pytest.mark.parametrize(
    ("next_update", "words"),
    [
        (None, ()),
        (NOW + DAY + 1, ()),
        (NOW + DAY - 1, ("The CRL of CN=CA is due for renewal.",)),
        (NOW - 1, ("The CRL of CN=CA is overdue.",)),
    ],
)
def test_a_revocation_list_degrades_from_a_day_before_it_is_due(
    next_update: float | None, words: tuple[str, ...]
) -> None:
    fresh = Crl("CN=Other", frozenset(), NOW + 7 * DAY)
    findings = crl_check(Material(lists=(fresh, Crl("CN=CA", frozenset(), next_update))), NOW)
    assert tuple(each.reason for each in findings) == words
    assert all(each.severity is Severity.DEGRADED for each in findings)


def test_an_ended_server_certificate_is_unready() -> None:
    assert certificate_check(Material(), NOW) == ()
    (finding,) = certificate_check(Material(ends=NOW), NOW)
    assert finding.severity is Severity.UNREADY


def test_metadata_is_unready_or_degraded_with_its_reasons() -> None:
    assert metadata_check(TrustStatus(ready=True)) == ()
    (finding,) = metadata_check(TrustStatus(ready=False, reason=Reason.METADATA_EXPIRED))
    assert finding.severity is Severity.UNREADY
    assert finding.reason.startswith(Reason.METADATA_EXPIRED.value)
    problems = metadata_check(TrustStatus(ready=True, message="late", problems=("odd",)))
    assert [(each.severity, each.reason) for each in problems] == [
        (Severity.DEGRADED, "odd"),
        (Severity.DEGRADED, "late"),
    ]


def test_a_control_side_that_is_away_degrades_after_a_minute_and_its_deny_list_grows_too_old() -> (
    None
):
    assert deny_list_check(CONTROL_DEGRADED_SECONDS - 0.1, 900) == ()
    (away,) = deny_list_check(CONTROL_DEGRADED_SECONDS, 900)
    assert away.severity is Severity.DEGRADED
    assert "has not been heard for 1 min" in away.reason
    assert deny_list_check(899.9, 900)[0].severity is Severity.DEGRADED
    (old,) = deny_list_check(900, 900)
    assert old.severity is Severity.UNREADY
    assert old.reason == "deny list too old: the control side has not been heard for 15 min"


def test_a_cache_that_cannot_keep_degrades_and_takes_no_node_out() -> None:
    assert cache_check(None, None) == ()
    findings = cache_check("Read-only file system", "The cache's index cannot be used: x.")
    assert {finding.severity for finding in findings} == {Severity.DEGRADED}
    first, second = (finding.reason for finding in findings)
    assert first.startswith("the cache's folder cannot be written (Read-only file system):")
    assert second.startswith("The cache's index cannot be used: x: nothing is evicted")
