"""What a lane's answer comes to when something goes wrong that nobody foresaw."""

import asyncio
import json
from itertools import count
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from facade.oci.digest import Digest
from facade.oci.host import RegistryHost
from facade.oci.request import PullRequest
from facade.reasons import Reason
from facade.serving.api.exchange import Books, Record, outcome
from facade.serving.api.lane import Lane, Lanes
from facade.serving.api.peer import Peers
from facade.serving.api.shortcut import Shortcut
from facade.serving.api.streaming import Sender
from facade.serving.api.understood import Understood
from facade.serving.identity.stream import TlsTransport
from facade.serving.pulls.admission import Slots, device_overloaded
from facade.serving.pulls.guard import StreamGuard
from facade.serving.pulls.service import PullService
from tests.support.clock import FakeClock
from tests.support.serving import a_device

PATH = f"/v2/ghcr.io/org/app/blobs/{Digest.of(b'x')}"
ASKED = f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


class Transport:
    more = False

    def __init__(self) -> None:
        self.written = b""
        self.aborted = self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def request_read(self) -> None:
        """Nobody looks at the limit on trickling requests here."""

    def answered(self) -> None:
        """Nor here."""

    def is_closing(self) -> bool:
        return self.aborted or self.closed

    def abort(self) -> None:
        self.aborted = True


class Bench:
    """A lane whose pulls raise `error` where a blob has to be waited for."""

    def __init__(self, error: BaseException) -> None:
        async def blob(*_: object) -> None:
            raise error

        clock = FakeClock()
        slots: Slots[tuple[str, str]] = Slots(
            2, wait_seconds=1, clock=clock, refusal=device_overloaded
        )
        pulls = cast(
            "PullService",
            SimpleNamespace(
                streams=slots, requests=slots, rates=None, blob=blob, ready_blob=lambda *_: None
            ),
        )
        peers = cast("Peers", SimpleNamespace(check=lambda _: a_device()))

        async def judge(*_: object) -> None:
            """Nothing to say against it."""

        guard = StreamGuard(judge=judge, generation=lambda: 0, clock=clock)
        understood = Understood(
            lambda path, ns: PullRequest.parse(path, ns=ns, default=RegistryHost("docker.io"))
        )
        understood.learn(ASKED, make_mocked_request("GET", PATH, headers={"Host": "x"}), 200)
        self.slots = slots
        self.records: list[Record] = []
        shortcut = Shortcut(
            understood=understood,
            pulls=pulls,
            peers=peers,
            sender=Sender(pulls=pulls, peers=peers, guard=guard, clock=clock),
            books=cast("Books", SimpleNamespace(finished=self.records.append)),
            clock=clock,
            ids=(f"{number:016x}" for number in count()),
        )
        self.transport = Transport()
        self.lanes = Lanes(shortcut=shortcut, understood=understood, idle_seconds=60.0)
        self.lane = Lane(self.lanes, asyncio.Protocol)
        self.lane.connection_made(cast("TlsTransport", self.transport))

    async def ask(self) -> Record:
        self.lane.data_received(ASKED)
        for _ in range(5):
            await asyncio.sleep(0)
        (record,) = self.records
        assert self.slots.total == 0
        return record


async def test_a_defect_is_logged_and_answered_without_its_words() -> None:
    bench = Bench(RuntimeError("secret"))
    with capture_logs() as logs:
        record = await bench.ask()
    assert [line["event"] for line in logs] == ["request_failed"]
    head, body = bench.transport.written.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert json.loads(body)["errors"][0]["detail"] == {
        "reason": "internal",
        "request_id": record.id,
    }
    assert b"secret" not in body
    assert (record.status, outcome(record)) == (503, "refused")
    assert record.error is not None
    assert record.error.reason is Reason.INTERNAL
    assert not bench.transport.is_closing()


@pytest.mark.parametrize("gone", [True, False])
async def test_a_connection_that_broke_is_never_left_open(gone: bool) -> None:
    bench = Bench(ConnectionResetError("gone"))
    bench.transport.closed = gone  # what waits to be written must still go out then
    record = await bench.ask()
    assert (record.status, outcome(record)) == (499, "left")
    assert bench.transport.written == b""
    assert bench.transport.aborted is not gone


async def test_nothing_follows_an_answer_that_was_given_up_from_within() -> None:
    bench = Bench(asyncio.CancelledError())  # the device is still there
    record = await bench.ask()
    assert (record.status, outcome(record)) == (499, "left")
    assert bench.transport.written == b""
    assert bench.transport.aborted
    assert not bench.lanes.open
