"""A stream shares the loop, however fast the device and however warm the file."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

from aiohttp.test_utils import make_mocked_request

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.reference import Repository
from facade.oci.request import PullRequest, Role
from facade.serving.api.answers import Plan
from facade.serving.api.eager import begin
from facade.serving.api.exchange import Exchange, Record
from facade.serving.api.peer import Peers
from facade.serving.api.streaming import TURN_BYTES, Sender
from facade.serving.blobs.port import BLOCK_BYTES, BlobStream, Outcome
from facade.serving.pulls.admission import Slots, device_overloaded
from facade.serving.pulls.answers import BlobAnswer, ReadyBlob
from facade.serving.pulls.guard import StreamGuard
from facade.serving.pulls.service import PullService
from tests.support.clock import FakeClock
from tests.support.serving import a_device

TURNS = 10
SIZE = TURNS * TURN_BYTES
REQUEST = PullRequest(Role.BLOB, RegistryHost("ghcr.io"), Repository("a"), Digest.of(b"x"))


class InMemory:
    """A stream that never waits."""

    outcome: Outcome = "hit"
    size = SIZE

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[memoryview]:
        for _ in range(SIZE // BLOCK_BYTES):
            yield memoryview(bytes(BLOCK_BYTES))

    async def aclose(self) -> None:
        """Nothing to close."""


async def judge(*_: object) -> None:
    """Nothing to say against it."""


def a_sender() -> Sender:
    clock = FakeClock()
    slots: Slots[tuple[str, str]] = Slots(2, wait_seconds=1, clock=clock, refusal=device_overloaded)
    return Sender(
        pulls=cast("PullService", SimpleNamespace(streams=slots, requests=slots, rates=None)),
        peers=cast("Peers", SimpleNamespace(check=lambda _: None)),
        guard=StreamGuard(judge=judge, generation=lambda: 0, clock=clock),
        clock=clock,
    )


async def test_others_have_a_turn_every_few_blocks() -> None:
    async def opened() -> BlobStream:
        return InMemory()

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    exchange = Exchange(make_mocked_request("GET", "/"), "id", 0.0)
    another = asyncio.create_task(other())
    await asyncio.sleep(0)
    answer = BlobAnswer(REQUEST, SIZE, "x/y", open=opened)
    plan = Plan(200, {"Content-Length": str(SIZE)}, 0, SIZE)
    await a_sender().send(exchange, a_device(), answer, plan)
    another.cancel()
    assert exchange.complete
    assert turns >= TURNS


class Counting:
    """An output that never makes anybody wait."""

    transport = asyncio.Transport()

    def __init__(self) -> None:
        self.plan = Plan(200, {}, 0, SIZE)
        self.written = 0

    async def begin(self) -> None:
        """Nothing to begin with."""

    async def write(self, piece: memoryview) -> None:
        self.written += len(piece)

    async def end(self) -> None:
        """Nothing to end."""


async def test_what_is_ready_takes_no_more_than_a_turn_at_once() -> None:
    record, output = Record("id", 0.0, "GET"), Counting()
    ready = ReadyBlob(REQUEST, "x/y", InMemory())
    task = begin(a_sender().send_ready(record, a_device(), ready, output))
    assert task is not None
    seen = [output.written]
    while not task.done():
        await asyncio.sleep(0)
        seen.append(output.written)
    assert max(after - before for before, after in pairwise([0, *seen])) == TURN_BYTES
    assert (record.complete, record.bytes_sent, record.cache) == (True, SIZE, "hit")
