"""What readiness asks of the device wing.

Guarantees: plain values in, findings out; a check reads no file and waits for nothing.
"""

from typing import Protocol

from facade.observability.health import Finding, Severity
from facade.serving.identity.revocation import Crl, crl_warnings
from facade.serving.trust.refresher import TrustStatus


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
