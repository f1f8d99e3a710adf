"""Upstreams that fail, stall, limit and lie: what is retried, for how long, and what is said."""

import asyncio
import time

import pytest

from facade.clock import SystemClock
from facade.errors import Upstream
from facade.oci.digest import Digest
from facade.oci.reference import Tag
from facade.reasons import Reason
from facade.target import MAX_MANIFEST_BYTES
from facade.upstream.connection import Authorization, Connection, Scope
from facade.upstream.retry import Timeouts
from tests.support.clock import FakeClock
from tests.support.image import small_image
from tests.support.misbehaviour import (
    Misbehaviour,
    chain,
    drop,
    garbage,
    header,
    longer_by,
    rate_limited,
    slow_head,
    stall,
    status,
    trickle,
    truncate,
    without_length,
    wrong_bytes,
    wrong_length,
)
from tests.support.registry import Registry
from tests.support.upstream_client import APP, Notes, read_blob, registry_client

V1 = Tag("v1")
BLOB = bytes(range(256)) * 4000


def good(registry: Registry) -> Connection:
    registry.add_image(str(APP), small_image(), "v1")
    return registry.connection()


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (garbage(), "unreachable"),
        (status(500), "status"),
        (status(502, b"<html>"), "status"),
        (status(503), "status"),
        (status(504), "status"),
        (status(408), "status"),
        (rate_limited(), "rate-limited"),
    ],
)
async def test_what_may_pass_is_tried_again(failure: Misbehaviour, why: str) -> None:
    clock, notes = FakeClock(auto=True), Notes()
    async with Registry() as registry, registry_client(clock=clock, observer=notes) as client:
        connection = good(registry)
        registry.script("*", failure, times=2)
        await client.manifest(connection, APP, V1)
        assert registry.count() == 3
        assert notes.retries == [why, why]
        assert clock.slept == [0.125, 0.25]


async def test_a_dropped_connection_is_made_again() -> None:
    notes = Notes()
    async with Registry() as registry, registry_client(observer=notes) as client:
        connection = good(registry)
        registry.script("*", drop(), times=5)
        await client.manifest(connection, APP, V1)
        assert registry.count() == 6
        # A second connection is tried before one is called dropped.
        assert notes.retries == ["unreachable"] * 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 410, 418, 501])
async def test_what_will_not_pass_is_not(code: int) -> None:
    async with Registry() as registry, registry_client() as client:
        registry.script("*", status(code, b'{"errors":[{"code":"X","message":"its words"}]}'))
        with pytest.raises(Upstream, match="its words") as caught:
            await client.manifest(registry.connection(), APP, V1)
        assert caught.value.status == code
        assert str(registry.host) in caught.value.message
        assert registry.count() == 1


async def test_persistent_failure_ends_with_the_registrys_words() -> None:
    async with Registry() as registry, registry_client() as client:
        registry.script("*", status(500, b'{"errors":[{"code":"UNKNOWN","message":"disk full"}]}'))
        with pytest.raises(Upstream, match=r"failed at .* \(500\).*UNKNOWN: disk full") as caught:
            await client.manifest(registry.connection(), APP, V1)
        assert caught.value.reason is Reason.UPSTREAM_REFUSED
        assert registry.count() == 5


async def test_retry_after_is_honoured() -> None:
    clock = FakeClock(auto=True)
    async with Registry() as registry, registry_client(clock=clock) as client:
        connection = good(registry)
        registry.script("*", rate_limited("7"), times=1)
        await client.manifest(connection, APP, V1)
        assert clock.slept == [7.0]


async def test_a_long_retry_after_is_passed_on_at_once() -> None:
    clock = FakeClock(auto=True)
    async with Registry() as registry, registry_client(clock=clock) as client:
        registry.script("*", rate_limited("3600"))
        with pytest.raises(Upstream, match="slow down") as caught:
            await client.manifest(registry.connection(), APP, V1)
        assert caught.value.reason is Reason.UPSTREAM_RATE_LIMITED
        assert caught.value.retry_after == 3600.0
        assert (registry.count(), clock.slept) == (1, [])


async def test_nobody_listens() -> None:
    clock, notes = FakeClock(auto=True), Notes()
    async with Registry() as registry:
        connection = registry.connection()
    async with registry_client(clock=clock, observer=notes) as client:
        with pytest.raises(Upstream, match="cannot be reached") as caught:
            await client.ping(connection)
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert caught.value.status is None
        assert str(connection.host) in caught.value.message
        assert notes.statuses == [None] * 5
        assert clock.monotonic() < 15


async def test_a_registry_that_comes_back_is_reached() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        connection, port = registry.connection(), registry.port
        await client.ping(connection)
        await registry.stop()
        waiting = asyncio.create_task(client.ping(connection))
        await asyncio.sleep(0.05)
        await registry.start(port)
        await waiting


async def test_no_first_byte_in_time() -> None:
    timeouts = Timeouts(first_byte=0.2)
    async with (
        Registry() as registry,
        registry_client(timeouts=timeouts, clock=SystemClock()) as client,
    ):
        registry.script("*", slow_head(60))
        started = time.monotonic()
        with pytest.raises(Upstream, match="in time") as caught:
            await client.ping(registry.connection())
        assert caught.value.reason is Reason.DEADLINE
        assert time.monotonic() - started < 2


async def test_a_slow_authorizer_is_under_the_deadline_too() -> None:
    class Slow:
        async def authorization(
            self, connection: Connection, scope: Scope, **given: object
        ) -> Authorization:
            await asyncio.sleep(60)
            raise AssertionError

    async with (
        Registry() as registry,
        registry_client(Slow(), timeouts=Timeouts(first_byte=0.1)) as client,
    ):
        with pytest.raises(Upstream, match="in time") as caught:
            await client.ping(registry.connection())
        assert caught.value.reason is Reason.DEADLINE


@pytest.mark.parametrize("cut", [truncate(100), wrong_length(50), truncate(0)])
async def test_a_short_manifest_is_no_manifest(cut: Misbehaviour) -> None:
    async with Registry() as registry, registry_client() as client:
        connection = good(registry)
        registry.script("*/manifests/*", cut)
        with pytest.raises(Upstream, match="did not finish") as caught:
            await client.manifest(connection, APP, V1)
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


async def test_a_manifest_that_never_comes() -> None:
    timeouts = Timeouts(small_body=0.1)
    async with Registry() as registry, registry_client(timeouts=timeouts) as client:
        connection = good(registry)
        registry.script("*", stall(10), trickle(1, 0.05))
        for _ in range(2):
            with pytest.raises(Upstream, match="did not finish") as caught:
                await client.manifest(connection, APP, V1)
            assert caught.value.reason is Reason.DEADLINE


@pytest.mark.parametrize("declared", [True, False])
async def test_an_oversized_manifest_is_refused(*, declared: bool) -> None:
    async with Registry() as registry, registry_client() as client:
        connection = good(registry)
        registry.script(
            "*",
            longer_by(MAX_MANIFEST_BYTES)
            if declared
            else chain(longer_by(MAX_MANIFEST_BYTES + 1), without_length()),
        )
        with pytest.raises(Upstream, match="more than 4194304 bytes") as caught:
            await client.manifest(connection, APP, V1)
        assert caught.value.reason is Reason.UPSTREAM_REFUSED


async def test_a_compressed_manifest_is_refused() -> None:
    async with Registry() as registry, registry_client() as client:
        connection = good(registry)
        registry.script("*", header("Content-Encoding", "gzip"))
        with pytest.raises(Upstream, match="compressed although"):
            await client.manifest(connection, APP, V1)


async def test_a_short_blob_breaks_off() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob(str(APP), BLOB)
        registry.script("*", truncate(300_000))
        received = bytearray()

        async def read() -> None:
            async with client.blob(registry.connection(), APP, digest) as body:
                async for chunk in body.chunks():
                    received.extend(chunk)

        with pytest.raises(Upstream, match="broke off in the middle") as caught:
            await read()
        assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert received == BLOB[: len(received)]
        assert registry.count() == 1  # resuming is the reader's business


async def test_wrong_bytes_and_lengths_reach_the_verifier() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob(str(APP), BLOB)
        connection = registry.connection()
        registry.script("*", wrong_bytes(b"evil"), longer_by(7), wrong_length(-10))
        assert await read_blob(client, connection, digest) == b"evil"
        assert await read_blob(client, connection, digest) == BLOB + bytes(7)
        assert await read_blob(client, connection, digest) == BLOB[:-10]
        registry.behave()
        assert await read_blob(client, connection, digest) == BLOB


@pytest.mark.parametrize("slowness", [stall(1000), stall(0), trickle(100, 0.05)])
async def test_a_stalled_blob_counts_as_broken(slowness: Misbehaviour) -> None:
    timeouts = Timeouts(stall_window=0.3, stall_bytes=10_000)
    async with (
        Registry() as registry,
        registry_client(clock=SystemClock(), timeouts=timeouts) as client,
    ):
        digest = registry.add_blob(str(APP), BLOB)
        registry.script("*", slowness)
        started = time.monotonic()
        with pytest.raises(Upstream, match="sends too slowly"):
            await read_blob(client, registry.connection(), digest)
        assert 0.2 < time.monotonic() - started < 3


async def test_a_slow_but_steady_blob_is_read() -> None:
    timeouts = Timeouts(stall_window=0.2, stall_bytes=1000)
    async with (
        Registry() as registry,
        registry_client(clock=SystemClock(), timeouts=timeouts) as client,
    ):
        data = BLOB[:20_000]
        digest = registry.add_blob(str(APP), data)
        registry.script("*", trickle(1000, 0.03))
        assert await read_blob(client, registry.connection(), digest) == data


async def test_our_own_slowness_is_not_the_upstreams_fault() -> None:
    timeouts = Timeouts(stall_window=0.1, stall_bytes=10_000_000)
    async with (
        Registry() as registry,
        registry_client(clock=SystemClock(), timeouts=timeouts) as client,
    ):
        digest, size = registry.add_repeated_blob(str(APP), BLOB, 4)
        received = 0
        async with client.blob(registry.connection(), APP, digest) as body:
            async for chunk in body.chunks():
                if received == 0:
                    await asyncio.sleep(0.4)
                received += len(chunk)
        assert received == size


async def test_a_large_blob_is_never_in_memory() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, size = registry.add_repeated_blob(str(APP), BLOB, 64)
        largest = received = 0
        async with client.blob(registry.connection(), APP, digest) as body:
            async for chunk in body.chunks():
                await asyncio.sleep(0.001)  # let the upstream run ahead as far as it can
                largest, received = max(largest, len(chunk)), received + len(chunk)
        assert received == size
        assert largest <= 1024 * 1024


async def test_a_reader_that_leaves_closes_the_transfer() -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest, _ = registry.add_repeated_blob(str(APP), BLOB, 64)
        before = asyncio.all_tasks()
        async with client.blob(registry.connection(), APP, digest) as body:
            async for _ in body.chunks():
                break
        await asyncio.sleep(0.2)  # a watcher that is still to begin would have
        assert not [
            task for task in asyncio.all_tasks() - before if "_watch" in repr(task.get_coro())
        ]
        assert await client.blob_size(registry.connection(), APP, digest) == len(BLOB) * 64


@pytest.mark.parametrize("phase", ["head", "body"])
async def test_a_cancelled_read_leaves_nothing_behind(phase: str) -> None:
    async with Registry() as registry, registry_client(clock=SystemClock()) as client:
        digest = registry.add_blob(str(APP), BLOB)
        registry.script("*", slow_head(60) if phase == "head" else stall(1000), times=1)
        before = asyncio.all_tasks()
        task = asyncio.create_task(read_blob(client, registry.connection(), digest))
        await asyncio.sleep(0.2)  # until its watcher has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.02)
        ours = [t for t in asyncio.all_tasks() - before if "Body" in repr(t.get_coro())]
        assert ours == []
        assert await read_blob(client, registry.connection(), digest) == BLOB


async def test_a_digest_of_nothing_is_asked_for_once() -> None:
    async with Registry() as registry, registry_client() as client:
        assert await client.blob_size(registry.connection(), APP, Digest.of(b"")) is None
        assert registry.count(method="HEAD") == 1
