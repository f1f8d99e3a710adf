"""What the workers count and what is wrong with them, asked of all at once and shown as one.

Guarantees: a figure that grows never goes back: a worker that does not answer in time stays in with its
last known figures, and what a worker that ended had counted stays for good (what it counted after it was
last asked is lost); what stays is bounded (`MAX_LEFT`). The node is unready when no worker can serve; when only some cannot, it is degraded.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry

from facade.errors import FacadeError
from facade.observability.exposition import (
    Families,
    count,
    decode,
    known_only,
    lasting,
    merged,
    read,
    render,
)
from facade.observability.health import Finding, Severity, decode_findings
from facade.workers.slot import Phase
from facade.workers.supervisor import Workers

log = structlog.get_logger(__name__)

ASK_SECONDS = 2.0
"""A probe's and a scrape's patience is about ten."""
MAX_LEFT = 400_000
"""Figures kept of workers that ended: honest ones leave the same again and again, and each of them bounds its
labels; one that was taken over could leave others at each end."""


class Asked(Protocol):
    """A worker's port (`facade.link`)."""

    async def samples(self) -> bytes:
        """Its samples, encoded. Raises FacadeError."""
        ...

    async def health(self) -> bytes:
        """Its findings, encoded. Raises FacadeError."""
        ...


class Gathering:
    """The node's figures and findings.

    Arguments:
        own: what the parent counts itself.
        asked: by the workers' order.
        max_left: figures of workers that ended, at most.
    """

    def __init__(
        self,
        own: CollectorRegistry,
        workers: Workers,
        asked: Sequence[Asked],
        *,
        max_left: int = MAX_LEFT,
    ) -> None:
        self._own = own
        self._workers = workers
        self._asked = asked
        self._max_left = max_left
        self._last: dict[int, Families] = {}
        self._gone: Families = {}
        self._ends = [0] * len(asked)
        self._findings: tuple[Finding, ...] = ()

    def retired(self, index: int) -> None:
        """A worker's process ended: keep what it counted."""
        self._ends[index] += 1
        left = lasting(self._last.pop(index, {}))
        if count(both := merged([self._gone, left])) > self._max_left:
            log.error("worker_figures_dropped", worker=index, count=count(left))
            both = merged([self._gone, known_only(left, self._gone)])
        self._gone = both

    def findings(self) -> tuple[Finding, ...]:
        """As of the last `look`."""
        return self._findings

    def render(self) -> bytes:
        """The Prometheus text exposition of all, as of the last `look`."""
        return render(merged([read(self._own), self._gone, *self._last.values()]))

    async def look(self) -> None:
        """Ask all workers."""
        found = await asyncio.gather(*map(self._one, range(len(self._asked))))
        self._findings = (*judged(found), *self._crashing())

    def _crashing(self) -> tuple[Finding, ...]:
        return tuple(
            Finding(
                Severity.DEGRADED,
                f"worker {slot.index} keeps ending ({slot.ended}), {slot.restarts.in_a_row} times "
                "in a row",
            )
            for slot in self._workers.crashing
        )

    async def _one(self, index: int) -> tuple[Finding, ...]:
        """One worker's findings; its samples are noted."""
        slot, asked = self._workers.slots[index], self._asked[index]
        if slot.phase is not Phase.SERVING:
            return (Finding(Severity.UNREADY, "it is being replaced"),)
        ends = self._ends[index]
        try:
            async with asyncio.timeout(ASK_SECONDS):
                samples, health = await asyncio.gather(asked.samples(), asked.health())
            families, findings = decode(samples), decode_findings(health)
        except (FacadeError, TimeoutError):
            return (Finding(Severity.UNREADY, "it does not answer"),)
        if ends == self._ends[index]:  # else it ended meanwhile, and was counted
            self._last[index] = families
        return findings


def judged(found: Sequence[Sequence[Finding]]) -> tuple[Finding, ...]:
    """The node's findings from each worker's: what all say is said once, the rest names who says it.

    What keeps a worker from serving keeps the node only when no worker can.
    """
    sayers: dict[Finding, list[str]] = {}
    for index, findings in enumerate(found):
        for finding in findings:
            sayers.setdefault(finding, []).append(str(index))
    able = any(
        all(finding.severity is not Severity.UNREADY for finding in findings) for findings in found
    )
    return tuple(
        Finding(
            Severity.DEGRADED if able else finding.severity,
            finding.reason
            if len(who) == len(found)
            else f"worker {', '.join(who)}: {finding.reason}",
        )
        for finding, who in sayers.items()
    )
