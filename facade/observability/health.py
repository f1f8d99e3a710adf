"""Readiness from injected checks (interface.md, "Metrics port").

Guarantees: `unready` only when a check says that this node cannot serve; everything else that is
wrong is `degraded`, so an upstream's outage takes no node out of a balancer. A check that
raises counts as a finding of its own, never as health. Does not probe anything itself.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from facade.errors import Invalid

log = structlog.get_logger(__name__)


class Severity(StrEnum):
    """How bad a finding is for the node as a whole."""

    DEGRADED = "degraded"
    UNREADY = "unready"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, in words for an operator."""

    severity: Severity
    reason: str


Check = Callable[[], Iterable[Finding]]
"""Asked at every probe: it must neither block nor touch the network."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The verdict: "ok", "degraded" or "unready", and why."""

    status: str
    reasons: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether a balancer may send devices here."""
        return self.status != "unready"


class Health:
    """Collects the findings of `checks`, by name."""

    def __init__(self, checks: Sequence[tuple[str, Check]]) -> None:
        self._checks = tuple(checks)
        self._draining = False

    def drain(self) -> None:
        """From now on unready: the node finishes what it has and goes."""
        self._draining = True

    def findings(self) -> list[Finding]:
        """What is wrong now."""
        findings = [finding for name, check in self._checks for finding in _run(name, check)]
        if self._draining:
            findings.append(Finding(Severity.UNREADY, "draining"))
        return findings

    def readiness(self) -> Readiness:
        """The verdict now."""
        findings = self.findings()
        if any(finding.severity is Severity.UNREADY for finding in findings):
            status = "unready"
        else:
            status = "degraded" if findings else "ok"
        # The worst first: a probe's log often keeps one line.
        findings.sort(key=lambda finding: finding.severity is not Severity.UNREADY)
        return Readiness(status, tuple(finding.reason for finding in findings))


def encode_findings(findings: Iterable[Finding]) -> bytes:
    """As JSON, for another process."""
    return json.dumps([[finding.severity, finding.reason] for finding in findings]).encode()


def decode_findings(data: bytes) -> tuple[Finding, ...]:
    """What `encode_findings` wrote. Raises Invalid for anything else."""
    try:
        return tuple(
            Finding(Severity(severity), str(reason)) for severity, reason in json.loads(data)
        )
    except (ValueError, TypeError, RecursionError) as error:  # the last: deep nesting
        raise Invalid("Another process sent findings that are none.") from error


def _run(name: str, check: Check) -> tuple[Finding, ...]:
    try:
        return tuple(check())
    except Exception as error:  # noqa: BLE001 - a broken check must not look like health
        log.error("health_check_failed", check=name, error_type=type(error).__name__)
        return (Finding(Severity.DEGRADED, f"the check {name!r} itself failed"),)
