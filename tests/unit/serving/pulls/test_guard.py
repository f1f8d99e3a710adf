"""The guard: running streams are judged again, and cut."""

import asyncio

import pytest

from facade.device import Device
from facade.errors import Denied, FacadeError, Unavailable
from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.reasons import Reason
from facade.serving.pulls.guard import UNDECIDED_SECONDS, StreamGuard, Watched
from tests.support.clock import FakeClock, settle
from tests.support.serving import a_device

REQUEST = PullRequest(
    Role.BLOB, RegistryHost("ghcr.io"), Repository("org/app"), Digest.of(b"layer")
)
WITHDRAWN = Denied("withdrawn", reason=Reason.NOT_SIGNED)


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.generation = 1
        self.verdict: Exception | None = None
        self.identity: Exception | None = None
        self.judged = 0
        self.gate: asyncio.Event | None = None
        self.stopped: list[Watched] = []
        self.guard = StreamGuard(
            judge=self.judge, generation=lambda: self.generation, clock=self.clock
        )

    async def judge(self, device: Device, request: PullRequest) -> None:
        self.judged += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.verdict is not None:
            raise self.verdict

    def check(self) -> None:
        if self.identity is not None:
            raise self.identity

    def watch(self) -> Watched:
        watched = self.guard.watch(
            a_device(), REQUEST, self.check, lambda: self.stopped.append(watched)
        )
        return watched

    async def rounds(self, seconds: float = 1.0) -> None:
        task = asyncio.create_task(self.guard.run())
        await self.clock.run_for(seconds)
        await settle()
        task.cancel()
        await settle()


async def test_while_nothing_changes_nobody_is_judged() -> None:
    bench = Bench()
    bench.watch()
    await bench.rounds(10)
    assert (bench.judged, bench.stopped) == (0, [])


async def test_a_withdrawn_digest_is_cut_in_the_next_round() -> None:
    bench = Bench()
    watched = bench.watch()
    bench.generation, bench.verdict = 2, WITHDRAWN
    await bench.rounds(1)
    assert bench.stopped == [watched]
    assert watched.ended_by is WITHDRAWN


async def test_a_revoked_device_is_cut_without_a_new_view() -> None:
    bench = Bench()
    watched = bench.watch()
    bench.identity = Denied("revoked", reason=Reason.DEVICE_REVOKED)
    await bench.rounds(1)
    assert watched.ended_by is bench.identity
    assert bench.judged == 0


async def test_a_stream_that_begins_while_nothing_was_sent_is_watched_too() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.guard.run())
    await bench.clock.run_for(60)
    assert bench.clock.slept == []  # a facade that nobody asks does nothing
    watched = bench.watch()
    bench.identity = Denied("revoked", reason=Reason.DEVICE_REVOKED)
    await bench.clock.run_for(1)
    assert bench.stopped == [watched]
    bench.guard.forget(watched)
    await bench.clock.run_for(60)
    assert bench.clock.sleepers == 0
    other = bench.watch()
    await bench.clock.run_for(1)
    assert bench.stopped == [watched, other]
    task.cancel()
    await settle()


async def test_what_is_still_allowed_goes_on_and_is_judged_once_per_change() -> None:
    bench = Bench()
    bench.watch()
    bench.generation = 2
    await bench.rounds(5)
    assert (bench.judged, bench.stopped) == (1, [])


async def test_what_cannot_be_decided_is_asked_again_and_not_cut() -> None:
    bench = Bench()
    bench.watch()
    bench.generation = 2
    bench.verdict = Unavailable("expired", reason=Reason.METADATA_EXPIRED)
    await bench.rounds(3)
    assert (bench.judged, bench.stopped) == (3, [])


async def test_what_may_have_been_withdrawn_does_not_go_on_for_ever() -> None:
    """Another image's manifest cannot be had: whether the digest is reachable stays open."""
    bench = Bench()
    watched = bench.watch()
    bench.generation = 2
    bench.verdict = Unavailable("incomplete", reason=Reason.CLOSURE_INCOMPLETE)
    await bench.rounds(UNDECIDED_SECONDS)
    assert bench.stopped == []
    await bench.rounds(2)
    assert watched.ended_by is bench.verdict


async def test_what_was_open_for_a_moment_is_not_counted_later() -> None:
    bench = Bench()
    bench.watch()
    for generation in range(2, 6):
        bench.generation = generation
        bench.verdict = Unavailable("incomplete", reason=Reason.CLOSURE_INCOMPLETE)
        await bench.rounds(2)
        bench.verdict = None
        await bench.rounds(1)
    assert bench.stopped == []


async def test_a_slow_judgement_holds_up_nobody_else() -> None:
    bench = Bench()
    slow, quick = bench.watch(), bench.watch()
    bench.gate = asyncio.Event()
    bench.generation = 2
    await bench.rounds(1)
    assert bench.judged == 2
    bench.identity = WITHDRAWN
    bench.guard.round()
    assert set(bench.stopped) == {slow, quick}


async def test_a_stream_that_ended_is_left_alone() -> None:
    bench = Bench()
    bench.guard.forget(bench.watch())
    bench.generation, bench.verdict = 2, WITHDRAWN
    await bench.rounds(2)
    assert (bench.guard.running, bench.judged, bench.stopped) == (0, 0, [])


async def test_it_is_stopped_once_for_the_first_reason() -> None:
    bench = Bench()
    watched = bench.watch()
    first: FacadeError = Denied("first", reason=Reason.DEVICE_REVOKED)
    watched.cut(first)
    watched.cut(WITHDRAWN)
    assert (watched.ended_by, bench.stopped) == (first, [watched])


@pytest.mark.parametrize("where", ["identity", "verdict"])
async def test_a_broken_judge_does_not_end_the_watch(where: str) -> None:
    bench = Bench()
    watched = bench.watch()
    setattr(bench, where, RuntimeError("bug"))
    bench.generation = 2
    await bench.rounds(2)
    assert bench.stopped == []
    bench.identity, bench.verdict = None, WITHDRAWN
    await bench.rounds(2)
    assert bench.stopped == [watched]


async def test_while_there_is_no_view_the_watch_goes_on() -> None:
    bench = Bench()

    def no_view() -> object:
        if bench.generation == 2:
            raise Unavailable("clock set back", reason=Reason.CLOCK_SET_BACK)
        return bench.generation

    guard = StreamGuard(judge=bench.judge, generation=no_view, clock=bench.clock)
    watched = guard.watch(a_device(), REQUEST, bench.check, lambda: None)
    bench.generation = 2
    bench.verdict = Unavailable("clock set back", reason=Reason.CLOCK_SET_BACK)
    guard.round()
    await settle()
    assert (bench.judged, watched.ended_by) == (1, None)
    bench.generation, bench.verdict = 3, WITHDRAWN
    guard.round()
    await settle()
    assert watched.ended_by is WITHDRAWN
