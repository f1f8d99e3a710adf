"""The short way before the HTTP server: the same answer, the same judgement, and never out of turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from facade.serving.api.understood import MAX_KNOWN
from facade.serving.identity.limits import TlsLimits
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.lanes import DATA, IMAGE, PAYLOAD, SECONDS, Bench
from tests.support.pki import client_context
from tests.support.registry import Registry


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        context = client_context(facade.server_ca, facade.ca.device())
        yield Bench(facade, registry, target, context)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("version", "headers"), [("1.1", ()), ("1.0", ("Connection: keep-alive",))]
)
async def test_both_ways_give_the_same_answer_and_write_down_the_same(
    bench: Bench, method: str, version: str, headers: tuple[str, ...]
) -> None:
    request = bench.get("manifests", *headers, method=method, v=version)
    async with bench.wire() as wire:
        await wire.ask(bench.get("manifests", "X: y"))  # it is in memory from here on
        bench.facade.control.events.clear()
        long = await bench.long_way(wire, request)
        short = await bench.short_way(wire, request)
    dates = {long[0].pop("Date"), short[0].pop("Date")}
    assert short == long
    assert short[1] == (DATA if method == "GET" else b"")
    assert all(date.endswith(" GMT") for date in dates)
    first, second = bench.reports
    assert (first.outcome, first.bytes_sent, first.digest, first.role, first.device) == (
        second.outcome,
        second.bytes_sent,
        second.digest,
        second.role,
        second.device,
    )
    counted = bench.facade.metrics.render().decode()
    assert 'facade_requests_total{route="manifests",status="200"} 3.0' in counted


async def test_a_new_connection_needs_no_http_server(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.long_way(wire, bench.get())
    async with bench.wire() as wire:
        head, body = await bench.short_way(wire, bench.get())
    assert (head[""], body) == ("HTTP/1.1 200 OK", DATA)


@pytest.mark.parametrize(
    ("version", "header"),
    [("1.1", "Connection: close"), ("1.0", "X: y"), ("2.0", "Connection: close")],
)
async def test_who_wants_no_further_answer_is_closed(
    bench: Bench, version: str, header: str
) -> None:
    request = bench.get("manifests", header, v=version)
    async with bench.wire() as wire:
        long, _ = await bench.long_way(wire, request)
        assert await wire.ended()
    async with bench.wire() as wire:
        short, body = await bench.short_way(wire, request)
        assert await wire.ended()
    assert body == DATA
    assert short.get("Connection") == long.get("Connection")


def _revoke(bench: Bench) -> None:
    bench.facade.control.revoke("dev", "kiosk-7", time.time())


def _disconnect(bench: Bench) -> None:
    bench.facade.control.disconnect(bench.registry.host)


def _nobody_confirms_the_deny_list(bench: Bench) -> None:
    bench.facade.control.silent = 900


def _too_late(bench: Bench) -> None:
    bench.facade.clock.offset += 400 * 86_400.0


@pytest.mark.parametrize(
    ("happens", "status", "reason"),
    [
        (_revoke, "403", b"device-revoked"),
        (_disconnect, "403", b"host-not-connected"),
        (_nobody_confirms_the_deny_list, "503", b"deny-list-too-old"),
        (_too_late, "", b""),
    ],
)
async def test_what_ends_a_permission_ends_it_on_an_open_connection(
    bench: Bench, happens: Callable[[Bench], None], status: str, reason: bytes
) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        happens(bench)
        head, body = await bench.long_way(wire, bench.get())
    assert " 200 " not in head[""]
    assert status in head[""]
    assert reason in body


async def test_a_withdrawn_manifest_is_refused(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        await bench.facade.withdraw(bench.target)
        await bench.facade.refresher.refresh()
        head, body = await bench.long_way(wire, bench.get())
    assert "403" in head[""]
    assert b"not-signed" in body


async def test_what_one_fleet_may_have_is_not_given_to_another(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
    bench.context = client_context(
        bench.facade.server_ca, bench.facade.ca.device("other", "till-1")
    )
    async with bench.wire() as wire:
        head, body = await bench.long_way(wire, bench.get())
    assert "403" in head[""]
    assert DATA not in body


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f'If-None-Match: "{IMAGE.index}"', "304"),
        ("Range: bytes=0-4", "206"),
        ("Upgrade: websocket", "200"),
    ],
)
async def test_what_is_not_plain_takes_the_long_way_each_time(
    bench: Bench, header: str, status: str
) -> None:
    request = bench.get("manifests", header)
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        await bench.long_way(wire, request)
    async with bench.wire() as wire:
        head, _body = await bench.long_way(wire, request)
    assert status in head[""]


async def test_answers_keep_their_order_when_requests_do_not_wait(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        # In one go, and one by one while the HTTP server sends what takes its time.
        wire.writer.write(bench.get("blobs") + bench.get())
        wire.writer.write(bench.get())
        await wire.writer.drain()
        wire.writer.write(bench.get("blobs"))
        wire.writer.write(bench.get())
        bodies = [(await wire.answer())[1] for _ in range(5)]
    assert bodies == [PAYLOAD, DATA, DATA, PAYLOAD, DATA]


async def test_who_does_not_wait_for_answers_gets_them_from_the_http_server(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        before = bench.facade.http_server.requests_count
        for _ in range(100):
            wire.writer.write(bench.get())
        bodies = [(await wire.answer())[1] for _ in range(100)]
        assert bodies == [DATA] * 100
        assert bench.facade.http_server.requests_count > before


async def test_after_a_blob_the_way_is_free_again(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        assert (await bench.long_way(wire, bench.get("blobs")))[1] == PAYLOAD
        await bench.short_way(wire, bench.get())


async def test_a_body_is_never_taken_for_a_request(bench: Bench) -> None:
    known = bench.get()
    async with bench.wire() as wire:
        await bench.known(wire, known)
        announced = bench.get("manifests", f"Content-Length: {len(known)}")
        await wire.ask(announced)
        before = bench.facade.http_server.requests_count
        wire.writer.write(known)  # the body
        wire.writer.write(bench.get("blobs"))
        assert (await wire.answer())[1] == PAYLOAD
        assert bench.facade.http_server.requests_count == before + 1


async def test_two_heads_with_bare_line_feeds_are_not_one(bench: Bench) -> None:
    at = path(bench.registry, "org/app", "manifests", IMAGE.index)
    odd = f"GET {at} HTTP/1.1\nHost: x\n\n".encode() + bench.get("blobs")
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        wire.writer.write(odd)
        wire.writer.write(odd)
        await wire.answer()
    async with bench.wire() as wire:
        before = bench.facade.http_server.requests_count
        wire.writer.write(odd)
        await wire.answer()
        assert bench.facade.http_server.requests_count > before


async def test_nothing_is_answered_beside_what_a_device_has_yet_to_read(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.long_way(wire, bench.get())
    async with bench.wire() as wire:
        await bench.short_way(wire, bench.get())
        (lane,) = bench.lanes.open
        lane.pause_writing()
        wire.writer.write(bench.get())
        before = bench.facade.http_server.requests_count
        while bench.facade.http_server.requests_count == before:  # noqa: ASYNC110 - real sockets
            await asyncio.sleep(0.01)
        lane.resume_writing()
        assert (await wire.answer())[1] == DATA


async def test_the_http_server_is_asked_before_it_gives_a_connection_up(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        bench.lanes.spell = 0.0
        await bench.long_way(wire, bench.get())


async def test_a_connection_that_the_http_server_never_saw_ends_when_idle_and_at_the_end(
    tmp_path: Path,
) -> None:
    tuning = Tuning(tls=TlsLimits(idle_seconds=1.0))
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        context = client_context(facade.server_ca, facade.ca.device())
        bench = Bench(facade, registry, target, context)
        async with bench.wire() as wire:
            await bench.long_way(wire, bench.get())
        async with bench.wire() as wire:
            await bench.short_way(wire, bench.get())
            assert await wire.ended()
        async with bench.wire() as wire:
            await bench.short_way(wire, bench.get())
            facade.app.close()
            assert await wire.ended()


async def test_a_device_at_its_bound_waits_for_a_slot(tmp_path: Path) -> None:
    async with FacadeApp(tmp_path, tuning=Tuning(requests=1)) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        context = client_context(facade.server_ca, facade.ca.device())
        bench = Bench(facade, registry, target, context)
        async with bench.wire() as first, bench.wire() as second:
            await bench.known(first, bench.get())
            await facade.pulls.requests.acquire(("dev", "kiosk-7"))
            asked = asyncio.create_task(bench.long_way(second, bench.get()))
            while facade.http_server.requests_count < 2:  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.01)
            assert not asked.done()
            facade.pulls.requests.release(("dev", "kiosk-7"))
            assert (await asked)[1] == DATA


def _ping() -> bytes:
    return b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("after_a_ping", [True, False])
async def test_a_drain_lets_a_blob_be_sent_whatever_the_http_server_believes(
    bench: Bench, after_a_ping: bool
) -> None:
    async with bench.wire() as wire:
        await bench.long_way(wire, bench.get("blobs"))
        await bench.facade.settled()
    async with bench.wire(slow=True) as wire, bench.wire() as idle:
        await bench.short_way(idle, bench.get("blobs"))
        if after_a_ping:
            await wire.ask(_ping())
        before = bench.facade.http_server.requests_count
        wire.writer.write(bench.get("blobs"))
        await bench.sending()
        assert bench.facade.http_server.requests_count == before
        finished = asyncio.create_task(bench.facade.app.finish(SECONDS))
        bench.facade.http_server.pre_shutdown()
        await bench.facade.http_server.shutdown(1.0)
        assert await idle.ended()
        assert not finished.done()
        assert (await wire.answer())[1] == PAYLOAD
        assert await wire.ended()
        await finished


async def test_who_takes_longer_than_the_drain_is_cut(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.long_way(wire, bench.get("blobs"))
        await bench.facade.settled()
    async with bench.wire(slow=True) as wire:
        wire.writer.write(bench.get("blobs"))
        await bench.sending()
        assert bench.reports[-1].outcome == "served"
        await bench.facade.app.finish(0.1)
        # Whoever waits for the drain's end may end the process next.
        assert bench.reports[-1].outcome == "left"
        assert len(await wire.rest()) < len(PAYLOAD)


async def test_who_comes_while_a_drain_waits_does_not_make_it_longer(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.long_way(wire, bench.get("blobs"))
        await bench.facade.settled()
    async with bench.wire(slow=True) as wire:
        wire.writer.write(bench.get("blobs"))
        await bench.sending()
        finished = asyncio.create_task(bench.facade.app.finish(10 * SECONDS))
        await asyncio.sleep(0)
        async with bench.wire() as late:
            assert await late.ended()
            assert not finished.done()
            assert (await wire.answer())[1] == PAYLOAD
            async with asyncio.timeout(SECONDS):
                await finished


def waiting(facade: FacadeApp) -> bool:
    return "facade_requests_waiting 1.0" in facade.metrics.render().decode()


@pytest.mark.parametrize("which", ["requests", "streams"])
async def test_a_blob_waits_for_its_slot(tmp_path: Path, which: str) -> None:
    tuning = Tuning(requests=1) if which == "requests" else Tuning(streams=1)
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        context = client_context(facade.server_ca, facade.ca.device())
        bench = Bench(facade, registry, target, context)
        async with bench.wire() as first, bench.wire() as second:
            await bench.long_way(first, bench.get("blobs"))
            await facade.settled()
            slots = facade.pulls.requests if which == "requests" else facade.pulls.streams
            await slots.acquire(("dev", "kiosk-7"))
            asked = asyncio.create_task(bench.short_way(second, bench.get("blobs")))
            while not waiting(facade):  # noqa: ASYNC110 - real sockets
                await asyncio.sleep(0.01)
            assert not asked.done()
            slots.release(("dev", "kiosk-7"))
            assert (await asked)[1] == PAYLOAD


async def test_the_manifests_words_are_not_pushed_out_by_blobs(bench: Bench) -> None:
    async with bench.wire() as wire:
        await bench.known(wire, bench.get())
        for number in range(MAX_KNOWN + 1):
            await wire.ask(bench.get("config", f"X-Number: {number}"))
        await bench.short_way(wire, bench.get())


async def test_what_is_remembered_is_bounded(bench: Bench) -> None:
    async with bench.wire() as wire:
        for number in range(MAX_KNOWN + 1):
            await bench.long_way(wire, bench.get("manifests", f"X-Number: {number}"))
        await bench.short_way(wire, bench.get("manifests", f"X-Number: {MAX_KNOWN}"))
        await bench.long_way(wire, bench.get("manifests", "X-Number: 0"))
