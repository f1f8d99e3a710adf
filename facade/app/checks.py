"""What readiness asks of the two wings.

Guarantees: plain values in, findings out; a check reads no file and waits for nothing.
"""

from collections.abc import Sequence
from typing import Protocol

from facade.observability.health import Finding, Severity
from facade.serving.identity.revocation import Crl, crl_warnings
from facade.serving.trust.refresher import TrustStatus

CONTROL_DEGRADED_SECONDS = 60.0
"""credentials.md, "Connections": a control side that is away this long is told of."""


class TlsMaterial(Protocol):
    """What is loaded for the listener (`identity.tls.TlsContexts`)."""

    def server_not_after(self) -> float:
        """When the server's certificate ends, Unix seconds."""
        ...

    def crls(self) -> tuple[Crl, ...]:
        """The revocation lists."""
        ...


def metadata_check(status: TrustStatus) -> tuple[Finding, ...]:
    """Whether the signed metadata lets anything be served."""
    if not status.ready:
        reason = status.reason.value if status.reason else "metadata-unavailable"
        return (Finding(Severity.UNREADY, f"{reason}: {status.message}"),)
    findings = [Finding(Severity.DEGRADED, problem) for problem in status.problems]
    if status.message:
        findings.append(Finding(Severity.DEGRADED, status.message))
    return tuple(findings)


def certificate_check(material: TlsMaterial, now: float) -> tuple[Finding, ...]:
    """Whether the server's certificate still holds at `now` (Unix seconds)."""
    if material.server_not_after() <= now:
        return (Finding(Severity.UNREADY, "the server certificate has expired"),)
    return ()


def crl_check(material: TlsMaterial, now: float) -> tuple[Finding, ...]:
    """Which revocation lists are overdue at `now` (Unix seconds), or will be within a day."""
    return tuple(
        Finding(Severity.DEGRADED, warning) for warning in crl_warnings(material.crls(), now)
    )


def cache_check(refuses: str | None, index_trouble: str | None) -> tuple[Finding, ...]:
    """Whether what is pulled can be kept, and the store be kept in order.

    Arguments:
        refuses: why nothing new can be written.
        index_trouble: why the index cannot be used.
    """
    findings = []
    if refuses is not None:
        words = (
            f"the cache's folder cannot be written ({refuses}): what is not in it yet is passed "
            "through from the registry each time"
        )
        findings.append(Finding(Severity.DEGRADED, words))
    if index_trouble is not None:
        words = (
            f"{index_trouble.rstrip('.')}: nothing is evicted, and registries are asked more often"
        )
        findings.append(Finding(Severity.DEGRADED, words))
    return tuple(findings)


def deny_list_check(silent_seconds: float, max_age: float) -> tuple[Finding, ...]:
    """Whether the deny list may still be relied on (interface.md, "Metrics port").

    Arguments:
        silent_seconds: how long ago the control side last said that ours is current.
        max_age: seconds of that after which devices are refused.
    """
    if silent_seconds < min(CONTROL_DEGRADED_SECONDS, max_age):
        return ()
    minutes = int(silent_seconds // 60)
    if silent_seconds < max_age:
        words = (
            f"the control side has not been heard for {minutes} min: revocations since then are "
            "not known here, and nothing new can be had from registries"
        )
        return (Finding(Severity.DEGRADED, words),)
    words = f"deny list too old: the control side has not been heard for {minutes} min"
    return (Finding(Severity.UNREADY, words),)


def insecure_check(hosts: Sequence[str]) -> tuple[Finding, ...]:
    """Plain http upstream degrades: what is pulled is verified, what is sent can be read."""
    if not hosts:
        return ()
    return (Finding(Severity.DEGRADED, f"plain http to {', '.join(hosts)}"),)


def revocations_check(unwritten: int) -> tuple[Finding, ...]:
    """Revocations that a restart would forget."""
    if not unwritten:
        return ()
    words = (
        f"revocations not written down: {unwritten}; they count, but the database cannot be "
        "written, and a restart would forget them"
    )
    return (Finding(Severity.DEGRADED, words),)
