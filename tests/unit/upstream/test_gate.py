"""The gate: who waits, who probes, who is refused and why."""

import asyncio
from dataclasses import replace

import pytest
from multidict import CIMultiDict

from facade.errors import Upstream
from facade.oci.host import RegistryHost
from facade.reasons import Reason
from facade.upstream.circuit import CircuitPolicy
from facade.upstream.connection import Connection
from facade.upstream.gate import Gates
from facade.upstream.gate_port import Passage
from tests.support.clock import FakeClock, settle

HUB = Connection("c1", RegistryHost.parse("docker.io"), "anonymous")
POLICY = CircuitPolicy(failures=2, chance=lambda: 1.0)
DOWN = Upstream("down", reason=Reason.UPSTREAM_UNREACHABLE)


class Opened:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def circuit_opened(self, host: str, why: str) -> None:
        self.seen.append((host, why))


class Stand:
    """A gate on a standing clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.opened = Opened()
        self.gates = Gates(clock=self.clock, policy=POLICY, observer=self.opened)

    async def enter(
        self, connection: Connection = HUB, kind: str = "blobs", within: float = 30.0
    ) -> Passage:
        return await self.gates.enter(connection, kind, within)

    async def limited(self, retry_after: float | None = 7.0) -> None:
        (await self.enter()).answered(429, retry_after)

    def waiter(self, connection: Connection = HUB, within: float = 30.0) -> asyncio.Task[Passage]:
        return asyncio.create_task(self.enter(connection, within=within))

    def hears(self, remaining: int, kind: str = "manifests") -> None:
        headers = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": f"{remaining};w=21600"}
        self.gates.heard(HUB, kind, CIMultiDict(headers))


async def test_a_closed_gate_lets_everybody_pass() -> None:
    stand = Stand()
    for status in (200, 206, 404, 401, 403, 416, 404, 404):
        (await stand.enter()).answered(status, None)
    assert stand.gates.trouble(HUB) is None
    assert stand.clock.slept == []


async def test_waiters_go_on_when_the_probe_is_answered() -> None:
    stand = Stand()
    await stand.limited()
    waiters = [stand.waiter() for _ in range(5)]
    await stand.clock.run_for(6.9)
    assert not any(waiter.done() for waiter in waiters)
    await stand.clock.run_for(0.2)
    assert [waiter.done() for waiter in waiters].count(True) == 1
    probe = next(waiter for waiter in waiters if waiter.done())
    (await probe).answered(200, None)
    await settle()
    assert all(waiter.done() for waiter in waiters)
    assert stand.gates.open_circuits(["docker.io", "ghcr.io"]) == {"docker.io": False}


async def test_a_probe_that_is_cancelled_hands_over() -> None:
    stand = Stand()
    await stand.limited()
    first, second = stand.waiter(), stand.waiter()
    await stand.clock.run_for(7.1)
    done = first if first.done() else second
    other = second if done is first else first
    (await done).left()
    await settle()
    assert other.done()


async def test_a_probe_that_fails_leaves_the_others_waiting_until_their_deadline() -> None:
    stand = Stand()
    await stand.limited()
    waiters = [stand.waiter(within=20) for _ in range(3)]
    await stand.clock.run_for(7.1)
    (await next(waiter for waiter in waiters if waiter.done())).answered(429, 100.0)
    await settle()
    refused = [waiter.exception() for waiter in waiters if waiter.done()]
    for error in [one for one in refused if one is not None]:
        assert isinstance(error, Upstream)
        assert error.reason is Reason.UPSTREAM_RATE_LIMITED
        assert error.retry_after == pytest.approx(100.0)
    assert len([one for one in refused if one is not None]) == 2


async def test_who_waits_for_a_probe_that_hangs_is_refused_at_the_deadline() -> None:
    stand = Stand()
    for _ in range(2):
        (await stand.enter()).failed(DOWN)
    await stand.clock.run_for(2)
    await stand.enter()  # the probe, which never ends
    waiter = stand.waiter(within=10)
    await stand.clock.run_for(9.9)
    assert not waiter.done()
    await stand.clock.run_for(0.2)
    error = waiter.exception()
    assert isinstance(error, Upstream)
    assert (error.reason, error.message) == (Reason.UPSTREAM_UNREACHABLE, "down")


async def test_what_cannot_be_waited_for_is_refused_at_once() -> None:
    stand = Stand()
    await stand.limited(3600.0)
    with pytest.raises(Upstream) as refusal:
        await stand.enter()
    assert refusal.value.reason is Reason.UPSTREAM_RATE_LIMITED
    assert refusal.value.retry_after == pytest.approx(3600.0)
    assert stand.clock.slept == []
    assert stand.opened.seen == [("docker.io", "rate-limited")]


@pytest.mark.parametrize("change", ["revision", "id"])
async def test_repaired_credentials_start_afresh_and_wake_who_waits(change: str) -> None:
    stand = Stand()
    await stand.limited(20.0)
    waiter = stand.waiter()
    await settle()
    repaired = replace(HUB, revision=2) if change == "revision" else replace(HUB, id="c2")
    (await stand.enter(repaired)).answered(200, None)
    await settle()
    if change == "revision":
        assert waiter.done()
        await stand.enter()  # what began before goes by the newer state too
    waiter.cancel()


async def test_registries_have_gates_of_their_own() -> None:
    stand = Stand()
    await stand.limited()
    other = replace(HUB, id="c9", host=RegistryHost.parse("ghcr.io"))
    (await stand.enter(other)).answered(200, None)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (DOWN, "unreachable"),
        (Upstream("x", reason=Reason.UPSTREAM_REFUSED, status=500), "failing"),
    ],
)
async def test_the_observer_learns_why(error: Upstream, why: str) -> None:
    stand = Stand()
    for _ in range(2):
        (await stand.enter()).failed(error)
    assert stand.opened.seen == [("docker.io", why)]


async def test_a_budget_that_is_nearly_used_is_paced_and_then_refused() -> None:
    stand = Stand()
    stand.hears(5)
    (await stand.enter(kind="manifests")).answered(200, None)  # the pace allows one
    with pytest.raises(Upstream) as refusal:
        await stand.enter(kind="manifests")
    assert refusal.value.reason is Reason.UPSTREAM_RATE_LIMITED
    assert refusal.value.retry_after == pytest.approx(216.0)
    (await stand.enter(kind="blobs")).answered(200, None)  # Docker Hub does not count these
    assert stand.gates.trouble(HUB) is None
    assert stand.gates.budgets(["docker.io", "ghcr.io"]) == {("docker.io", "manifests"): 5}


async def test_who_waits_for_the_budget_goes_on_when_there_is_more() -> None:
    stand = Stand()
    stand.hears(5)
    (await stand.enter(kind="manifests")).answered(200, None)
    waiter = asyncio.create_task(stand.enter(kind="manifests", within=1000))
    await settle()
    stand.hears(50)
    await settle()
    assert waiter.done()


async def test_what_is_under_way_counts_as_spent() -> None:
    stand = Stand()
    stand.hears(7)
    passages = [await stand.enter(kind="manifests") for _ in range(2)]
    with pytest.raises(Upstream):
        await stand.enter(kind="manifests", within=1)
    for passage in passages:
        passage.answered(200, None)
    await stand.enter(kind="manifests", within=1)
