"""Three serving processes under one `facade up`: what they share, and what one of them may suffer.

The tests share one installation and go from what changes nothing to what ends it.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.crew import (
    CONNECTIONS,
    alive,
    answered_by,
    descriptors,
    environment,
    everywhere,
    from_all,
    mapped,
    pss_mib,
    until,
    workers_of,
)
from tests.support.live import REPOSITORY, Live, live
from tests.support.misbehaviour import trickle
from tests.support.traffic import Samples, scrape
from tests.support.unix_tap import tapped

WORKERS = 3
PSS_MIB = 110
GONE_SECONDS = 2.0
MAX_AGE_SECONDS = 10
STREAMS = 9
SLACK_SECONDS = 10.0
"""What a busy machine may add to a bound of some seconds."""

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    env = {
        "FACADE_DEVICE__WORKERS": str(WORKERS),
        "FACADE_DEVICE__DENY_LIST_MAX_AGE": str(MAX_AGE_SECONDS),
        "FACADE_DEVICE__LIMITS__STREAMS": str(STREAMS),
    }
    async with live(tmp_path_factory.mktemp("workers"), env=env) as installation:
        await installation.add()
        await installation.import_all()
        answered = await installation.pull("v1")
        assert answered.status == 200
        yield installation


def blob(it: Live, tag: str, *, manifest: bool = False) -> str:
    """The path of the image's largest blob, or of its top manifest."""
    image = it.images[tag]
    base = f"/v2/{it.registry.host.path_segment}/{REPOSITORY}"
    if manifest:
        return f"{base}/manifests/{image.index}"
    digest = max(image.blobs, key=lambda each: len(image.blobs[each]))
    return f"{base}/blobs/{digest}"


def total(metrics: Samples, name: str, **labels: str) -> float:
    """The sum over all label sets that have these labels."""
    return sum(
        value
        for found, value in metrics.get(f"facade_{name}", {}).items()
        if set(labels.items()) <= set(found)
    )


async def readiness(it: Live) -> tuple[int, str, list[str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{it.facade.metrics}/readyz") as answer,
    ):
        body = await answer.json()
        return answer.status, body["status"], body["reasons"]


async def test_all_of_them_serve_and_what_is_counted_is_the_sum(it: Live) -> None:
    before, lines = await scrape(it), len(it.facade.events)
    answers = await from_all(it, blob(it, "v1"))
    assert {answer.status for answer in answers} == {200}
    after = await scrape(it)
    for name, labels in (
        ("requests_total", {"route": "blobs", "status": "200"}),
        ("request_duration_seconds_count", {"route": "blobs"}),
        ("cache_requests_total", {"outcome": "hit"}),
        ("handshakes_total", {}),
    ):
        assert total(after, name, **labels) - total(before, name, **labels) == CONNECTIONS, name
    sent = total(after, "sent_bytes_total") - total(before, "sent_bytes_total")
    assert sent == sum(len(answer.body) for answer in answers)
    await until(lambda: answered_by(it.facade, lines) == set(range(WORKERS)))
    assert total(after, "workers") == total(after, "workers_configured") == WORKERS
    # Gauges are not sums: three processes look at one folder and at one set of keys.
    [(_, ready)] = after["facade_ready"].items()
    assert ready == 1
    assert 0 < total(after, "metadata_expiry_seconds", role="timestamp") < 86_400 * 2
    _status, verdict, reasons = await readiness(it)
    assert (verdict, len(reasons)) == ("degraded", 1)  # plain http, said once
    assert reasons[0].startswith("plain http")


async def test_a_worker_is_small_and_holds_nothing_of_the_control_side(it: Live) -> None:
    pids = workers_of(it.facade.pid)
    assert len(pids) == WORKERS
    for pid in pids:
        assert pss_mib(pid) <= PSS_MIB
        maps = mapped(pid)
        for unwanted in ("sqlalchemy", "greenlet", "aiobotocore", "facade.db"):
            assert unwanted not in maps
        names = descriptors(pid)
        assert not [name for name in names if "facade.db" in name or name.endswith(".key")]
        assert b"FACADE_" not in environment(pid)


async def test_status_and_doctor_speak_for_all(it: Live) -> None:
    status = (await it.facade.must("cache", "status", "--json")).json
    assert status["objects"] > 0
    checks = (await it.facade.must("doctor", "--json")).json["checks"]
    assert "failed" not in {check["status"] for check in checks}


async def test_what_a_device_may_have_at_once_holds_for_all_of_them_together(it: Live) -> None:
    it.registry.script("*/blobs/*", trickle(1_250, 0.2))  # 16 s
    asked = [asyncio.create_task(it.get(blob(it, "v4"))) for _ in range(CONNECTIONS)]
    try:
        async with asyncio.timeout(SLACK_SECONDS):
            while True:
                now = await scrape(it)
                running = total(now, "streams_in_flight")
                assert running <= STREAMS
                if (running, total(now, "requests_waiting")) == (STREAMS, CONNECTIONS - STREAMS):
                    break
    finally:
        it.registry.behave()
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_one_that_crashes_is_replaced_and_no_new_connection_is_lost(it: Live) -> None:
    before = await scrape(it)
    pids = workers_of(it.facade.pid)
    os.kill(pids[1], signal.SIGKILL)
    answers = await from_all(it, blob(it, "v1"))  # a third of them waits for the next one
    assert {answer.status for answer in answers} == {200}
    await it.facade.logged("worker_replaced", within=30)
    after = await scrape(it)
    assert total(after, "worker_restarts_total") == 1
    [ended] = [event for event in it.facade.events if event["event"] == "worker_ended"]
    assert (ended["status"], ended["pid"]) == ("SIGKILL", pids[1])
    fresh = workers_of(it.facade.pid)
    assert len(fresh) == WORKERS
    assert len(set(fresh) - set(pids)) == 1
    backwards = [
        (name, labels)
        for name, values in before.items()
        if name.endswith(("_total", "_count", "_bucket"))
        for labels, value in values.items()
        if after[name].get(labels, 0) < value
    ]
    assert backwards == []
    lines = len(it.facade.events)
    await everywhere(it, blob(it, "v1"), 200)
    await until(lambda: answered_by(it.facade, lines) == set(range(WORKERS)))


async def test_a_revoked_device_a_withdrawn_image_and_a_removed_registry_are_refused_by_all(
    it: Live,
) -> None:
    """When the command has answered, every worker has taken it up."""
    await it.facade.must("artifact", "withdraw", "dev/kiosk/v6", "--yes")
    answers = await from_all(it, blob(it, "v6", manifest=True))
    assert {(answer.status, answer.reason) for answer in answers} == {(403, "not-signed")}
    revoked = await it.facade.must("device", "revoke", "dev/kiosk-1", "--json")
    assert "pending" not in revoked.stdout
    answers = await from_all(it, blob(it, "v1"))
    assert {(answer.status, answer.reason) for answer in answers} == {(403, "device-revoked")}
    await it.facade.must("device", "restore", "dev/kiosk-1")
    await it.facade.must("device", "issue", "dev/kiosk-1", "--out", it.certificates, "--force")
    await everywhere(it, blob(it, "v1"), 200)
    await it.facade.must("registry", "remove", it.host, "--yes")
    answers = await from_all(it, blob(it, "v1"))
    assert {(answer.status, answer.reason) for answer in answers} == {(403, "host-not-connected")}
    await it.add()
    await everywhere(it, blob(it, "v1", manifest=True), 200)
    assert (await it.pull("v1")).status == 200


async def test_what_one_of_them_has_served_all_serve_with_the_control_side_stopped(
    it: Live,
) -> None:
    """Manifests too: those kept at import come from the control side, and then lie in the cache."""
    image, folder = it.images["v5"], it.facade.state / "cache" / "blobs" / "sha256"
    assert (await it.pull("v5")).status == 200
    names = [digest.hex for digest in image.manifests]
    await until(lambda: all((folder / name[:2] / name).exists() for name in names))
    os.kill(it.facade.pid, signal.SIGSTOP)
    try:
        answers = await from_all(it, blob(it, "v5"))
        answers = [*answers, *await from_all(it, blob(it, "v5", manifest=True))]
        assert {answer.status for answer in answers} == {200}
    finally:
        os.kill(it.facade.pid, signal.SIGCONT)


async def test_with_the_control_side_stopped_for_too_long_devices_are_refused_and_it_heals(
    it: Live,
) -> None:
    """What is cached is served meanwhile; nobody is replaced for what the control side did not see."""
    pids = workers_of(it.facade.pid)
    os.kill(it.facade.pid, signal.SIGSTOP)
    try:
        answers = await from_all(it, blob(it, "v1"))
        assert {answer.status for answer in answers} == {200}
        await everywhere(it, blob(it, "v1"), 503, within=MAX_AGE_SECONDS + SLACK_SECONDS)
        refused = await it.get(blob(it, "v1"))
        assert refused.reason == "deny-list-too-old"
        assert int(refused.headers["Retry-After"]) > 0
    finally:
        os.kill(it.facade.pid, signal.SIGCONT)
    await everywhere(it, blob(it, "v1"), 200, within=SLACK_SECONDS)
    assert (await it.pull("v2")).status == 200  # needs a token, so the control side
    assert (await readiness(it))[0] == 200
    assert workers_of(it.facade.pid) == pids


async def test_one_that_hangs_and_one_that_is_cut_off_are_replaced(it: Live) -> None:
    """The third serves meanwhile, and no new connection is lost."""
    before = await scrape(it)

    def said(event: str, since: int) -> list[dict[str, Any]]:
        return [each for each in it.facade.events[since:] if each["event"] == event]

    control = it.facade.state / "run" / "control"
    real = control.rename(control.with_name("real"))
    async with tapped(real, control) as tap:
        lines = len(it.facade.events)
        os.kill(workers_of(it.facade.pid)[0], signal.SIGKILL)
        await until(lambda: bool(said("worker_replaced", lines)))
        cut_off = said("worker_replaced", lines)[0]["pid"]
        assert b"/feed" in tap.heard
        stopped = next(pid for pid in workers_of(it.facade.pid) if pid != cut_off)
        tap.flowing.clear()
        os.kill(stopped, signal.SIGSTOP)
        await until(lambda: len(said("worker_of_no_use", lines)) == 2, within=60)
        real.rename(control)  # before its successor looks for it
        found = {(each["pid"], each["reason"]) for each in said("worker_of_no_use", lines)}
        assert found == {(cut_off, "cut-off"), (stopped, "stuck")}
    answers = await from_all(it, blob(it, "v1"))
    assert {answer.status for answer in answers} == {200}
    await until(lambda: len(said("worker_replaced", lines)) == 3)
    after = await scrape(it)
    for reason, count in (("ended", 1), ("cut-off", 1), ("stuck", 1), ("not-started", 0)):
        name = "worker_restarts_total"
        assert total(after, name, reason=reason) - total(before, name, reason=reason) == count
    assert len(workers_of(it.facade.pid)) == WORKERS
    assert not alive(stopped)
    assert not alive(cut_off)


async def test_hangup_reloads_all_of_them(it: Live) -> None:
    lines = len(it.facade.events)
    os.kill(it.facade.pid, signal.SIGHUP)

    def reloaded() -> set[int | None]:
        events = it.facade.events[lines:]
        return {event.get("worker") for event in events if event["event"] == "tls_reloaded"}

    await until(lambda: reloaded() == {None, *range(WORKERS)})
    assert len(workers_of(it.facade.pid)) == WORKERS


async def kept_after_a_manifest(it: Live) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection over which nothing but a manifest was asked for, in always the same words."""
    host, port = it.facade.device.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=it.context)
    writer.write(f"GET {blob(it, 'v1', manifest=True)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    image = it.images["v1"]
    await reader.readexactly(len(image.manifests[image.index][1]))
    return reader, writer


async def test_the_drain_lets_a_running_pull_finish_and_takes_no_new_connection(it: Live) -> None:
    path = blob(it, "v3")
    idle = [await kept_after_a_manifest(it) for _ in range(CONNECTIONS)]
    it.registry.script("*/blobs/*", trickle(5_000, 0.2))  # 4 s
    running = asyncio.create_task(it.get(path))
    digest = path.rpartition("/")[2]
    await until(lambda: bool(it.registry.seen(f"*/blobs/{digest}")))
    pids = workers_of(it.facade.pid)
    stopping = asyncio.create_task(it.facade.stop())
    await it.facade.logged("draining")
    async with asyncio.timeout(SLACK_SECONDS):
        for reader, writer in idle:  # nothing new is to begin on one of them
            assert await reader.read() == b""
            writer.close()
    host, port = it.facade.device.rsplit(":", 1)

    async def refused() -> None:
        for _ in range(CONNECTIONS):
            _reader, writer = await asyncio.open_connection(host, int(port))
            writer.close()

    async with asyncio.timeout(SLACK_SECONDS):
        while True:
            try:
                await refused()
            except ConnectionRefusedError:
                break
            except ConnectionResetError:
                continue  # it was in the queue of a listener that closed
    assert not running.done()
    answer = await running
    assert (answer.status, len(answer.body)) == (200, max(map(len, it.images["v3"].blobs.values())))
    assert await stopping == 0
    assert not any(map(alive, pids))
    it.registry.behave()


async def test_killed_with_all_its_workers_and_started_again_at_once(it: Live) -> None:
    await it.facade.start()
    pids = workers_of(it.facade.pid)
    assert len(pids) == WORKERS
    assert (await it.pull("v1")).status == 200
    await it.facade.kill()
    killed = time.monotonic()
    await until(lambda: not any(map(alive, pids)), within=GONE_SECONDS)
    assert time.monotonic() - killed < GONE_SECONDS
    await it.facade.start()
    assert (await it.pull("v1")).status == 200
    assert len(workers_of(it.facade.pid)) == WORKERS
