"""What several workers say, as one: figures that never go back, findings that say who."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from facade.clock import SystemClock
from facade.errors import Unavailable
from facade.observability.exposition import encode, read
from facade.observability.health import Finding, Severity, encode_findings
from facade.workers.gather import Gathering, judged
from facade.workers.slot import Phase
from facade.workers.sockets import bind_for_workers
from facade.workers.supervisor import Workers

BAD = Finding(Severity.UNREADY, "no valid metadata")
POOR = Finding(Severity.DEGRADED, "a list is overdue")


class Worker:
    """One that counts, and may be mute."""

    def __init__(self) -> None:
        self.begin()
        self.findings: list[Finding] = []
        self.mute = False
        self.lie: bytes | None = None

    def begin(self) -> None:
        self.registry = CollectorRegistry()
        self.pulls = Counter("facade_pulls", "P.", registry=self.registry)
        self.flight = Gauge("facade_transfers_in_flight", "T.", registry=self.registry)

    async def samples(self) -> bytes:
        if self.mute:
            raise Unavailable("Gone.")
        if self.lie is not None:
            return self.lie
        return encode(read(self.registry))

    async def health(self) -> bytes:
        return encode_findings(self.findings)


class Node:
    def __init__(self, count: int) -> None:
        self.workers = [Worker() for _ in range(count)]
        sockets = bind_for_workers("127.0.0.1", 0, count)
        self.slots = Workers(sockets, environ=os.environ, clock=SystemClock())
        for slot in self.slots.slots:
            slot.sock.close()
            slot.phase = Phase.SERVING
        own = CollectorRegistry()
        Counter("facade_own", "O.", registry=own).inc(5)
        self.gathering = Gathering(own, self.slots, self.workers)

    async def value(self, name: str) -> float:
        await self.gathering.look()
        text = self.gathering.render().decode()
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }[name]


async def test_counts_are_summed_and_survive_their_process() -> None:
    node = Node(3)
    for number, worker in enumerate(node.workers, 1):
        worker.pulls.inc(number)
        worker.flight.set(1)
    assert await node.value("facade_pulls_total") == 6
    assert await node.value("facade_own_total") == 5
    assert await node.value("facade_transfers_in_flight") == 3
    node.workers[2].mute = True  # between its end and our noticing
    assert await node.value("facade_pulls_total") == 6
    node.gathering.retired(2)
    node.slots.slots[2].phase = Phase.DOWN
    assert await node.value("facade_pulls_total") == 6
    assert await node.value("facade_transfers_in_flight") == 2
    node.workers[2].begin()
    node.workers[2].mute = False
    node.slots.slots[2].phase = Phase.SERVING
    node.workers[2].pulls.inc(10)
    assert await node.value("facade_pulls_total") == 16


async def test_an_answer_from_before_the_end_is_not_counted_twice() -> None:
    node = Node(1)
    worker = node.workers[0]
    worker.pulls.inc(4)
    await node.gathering.look()
    asked, go = asyncio.Event(), asyncio.Event()

    class Late:
        async def samples(self) -> bytes:
            data = await worker.samples()
            asked.set()
            await go.wait()
            return data

        async def health(self) -> bytes:
            return await worker.health()

    late = Gathering(CollectorRegistry(), node.slots, [Late()])
    looking = asyncio.ensure_future(late.look())
    await asked.wait()
    late.retired(0)
    go.set()
    await looking
    assert b"facade_pulls_total 4" not in late.render()


async def test_what_ended_workers_leave_is_bounded() -> None:
    """One that was taken over may end as often as it likes, with other figures each time."""
    node = Node(1)
    worker = node.workers[0]
    late = Gathering(CollectorRegistry(), node.slots, [worker], max_left=50)
    for number in range(30):
        worker.begin()
        worker.pulls.inc(1)
        other = Counter("facade_other", "O.", ["host"], registry=worker.registry)
        for each in range(4):
            other.labels(f"{number}-{each}").inc()
        await late.look()
        late.retired(0)
    page = late.render().decode()
    assert "facade_pulls_total 30.0" in page
    assert page.count("facade_other_total{") <= 50


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([[], []], []),
        ([[POOR], [POOR]], [POOR]),
        ([[POOR], []], [Finding(Severity.DEGRADED, "worker 0: a list is overdue")]),
        ([[BAD], [BAD]], [BAD]),
        ([[BAD], []], [Finding(Severity.DEGRADED, "worker 0: no valid metadata")]),
        (
            [[BAD], [Finding(Severity.UNREADY, "it does not answer")], [POOR]],
            [
                Finding(Severity.DEGRADED, "worker 0: no valid metadata"),
                Finding(Severity.DEGRADED, "worker 1: it does not answer"),
                Finding(Severity.DEGRADED, "worker 2: a list is overdue"),
            ],
        ),
    ],
)
def test_what_all_say_is_said_once_and_one_that_can_serve_is_enough(
    found: Sequence[Sequence[Finding]], expected: list[Finding]
) -> None:
    assert list(judged(found)) == expected


async def test_one_that_is_mute_or_down_is_a_finding(tmp_path: Path) -> None:
    node = Node(3)
    node.workers[0].mute = True
    node.slots.slots[1].phase = Phase.DOWN
    await node.gathering.look()
    assert list(node.gathering.findings()) == [
        Finding(Severity.DEGRADED, "worker 0: it does not answer"),
        Finding(Severity.DEGRADED, "worker 1: it is being replaced"),
    ]
    node.slots.slots[2].phase = Phase.DOWN
    await node.gathering.look()
    assert {finding.severity for finding in node.gathering.findings()} == {Severity.UNREADY}


@pytest.mark.parametrize("lie", [b"[" * 100_000, b'[["n","teapot","",[]]]'])
async def test_one_that_lies_does_not_keep_the_others_from_being_shown(lie: bytes) -> None:
    node = Node(2)
    node.workers[1].pulls.inc(3)
    node.workers[0].lie = lie
    assert await node.value("facade_pulls_total") == 3
    assert list(node.gathering.findings()) == [
        Finding(Severity.DEGRADED, "worker 0: it does not answer")
    ]
