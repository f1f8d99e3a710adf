"""Bytes that do not match: from the registry, from the disk; and streams that must end early."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path

import aiohttp
import pytest

from facade.oci.digest import Digest
from facade.serving.blobs.limits import TransferLimits
from facade.target import SignedTarget
from facade.upstream.retry import RetryPolicy
from facade.wings import IntegrityFailed, Pulled
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import one_layer_image
from tests.support.misbehaviour import (
    Misbehaviour,
    corrupt,
    drop,
    header,
    longer_by,
    stall,
    trickle,
    truncate,
    wrong_bytes,
    wrong_length,
)
from tests.support.registry import Registry

HELD = 64 * 1024
SIZE = 1024 * 1024
PAYLOAD = shake_256(b"payload").digest(SIZE)
LAYER = Digest.of(PAYLOAD)
IMAGE = one_layer_image(PAYLOAD)
CUT_WITHIN_SECONDS = 5.0


@dataclass
class Bench:
    facade: FacadeApp
    registry: Registry
    target: SignedTarget
    kiosk: aiohttp.ClientSession

    @property
    def blob(self) -> str:
        return path(self.registry, "org/app", "blobs", LAYER)

    @property
    def manifest(self) -> str:
        return path(self.registry, "org/app", "manifests", IMAGE.index)

    async def read(self, **headers: str) -> tuple[int, bytes, bool]:
        """Status, bytes, and whether the client may take the body for complete."""
        async with self.kiosk.get(self.blob, headers=headers) as answer:
            got = bytearray()
            try:
                async for chunk in answer.content.iter_any():
                    got += chunk
            except aiohttp.ClientError:
                return answer.status, bytes(got), False
            return answer.status, bytes(got), True

    async def reason(self) -> tuple[int, str]:
        async with self.kiosk.get(self.blob) as answer:
            return answer.status, (await answer.json())["errors"][0]["detail"]["reason"]

    @property
    def failures(self) -> list[IntegrityFailed]:
        return [e for e in self.facade.control.events if isinstance(e, IntegrityFailed)]

    @property
    def last_pull(self) -> Pulled:
        return [e for e in self.facade.control.events if isinstance(e, Pulled)][-1]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        async with facade.device() as kiosk:
            yield Bench(facade, registry, target, kiosk)


WRONG: dict[str, Misbehaviour] = {
    "one bit at the start": corrupt(0),
    "one bit at the end": corrupt(SIZE - 1),
    "other bytes of the same length": wrong_bytes(bytes(SIZE)),
    "too long": longer_by(1),
    "much too long": longer_by(SIZE),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_a_registry_got_wrong_is_never_taken_for_complete(
    bench: Bench, what: str
) -> None:
    bench.registry.script("*/blobs/*", WRONG[what])
    async with bench.kiosk.get(bench.blob) as answer:
        if answer.status == 200:
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        else:
            assert answer.status == 502
            assert (await answer.json())["errors"][0]["detail"]["reason"] == "integrity"
    await bench.facade.settled()
    assert len(bench.failures) == 1
    assert bench.failures[0].digest == str(LAYER)
    assert bench.failures[0].repository == "org/app"
    assert await bench.facade.store.open(LAYER) is None
    assert f'integrity_failures_total{{host="{bench.registry.host}"}} 1.0' in (
        bench.facade.metrics.render().decode()
    )


async def test_the_end_is_held_back_until_the_verdict(bench: Bench) -> None:
    bench.registry.script("*/blobs/*", corrupt(SIZE - 1))
    status, got, complete = await bench.read()
    assert (status, complete) == (200, False)
    assert len(got) <= SIZE - HELD
    assert PAYLOAD.startswith(got)


async def test_after_a_mismatch_it_answers_502_for_a_while_without_a_fetch(bench: Bench) -> None:
    bench.registry.script("*/blobs/*", corrupt())
    await bench.read()
    await bench.facade.settled()
    asked = bench.registry.count("*/blobs/*")
    assert await bench.reason() == (502, "integrity")
    assert bench.registry.count("*/blobs/*") == asked


@pytest.mark.parametrize("times", [1, 4])
async def test_a_transfer_that_breaks_off_is_resumed_unseen(bench: Bench, times: int) -> None:
    bench.registry.script("*/blobs/*", truncate(200_000), times=times)
    assert await bench.read() == (200, PAYLOAD, True)
    assert bench.failures == []
    ranges = [seen.headers.get("range") for seen in bench.registry.seen("*/blobs/*")]
    assert ranges == [None, *(f"bytes={200_000 * n}-" for n in range(1, times + 1))]


@pytest.mark.parametrize("difference", [-1, 1])
async def test_a_registry_that_announces_another_size_is_not_read(
    bench: Bench, difference: int
) -> None:
    bench.registry.script("*/blobs/*", wrong_length(difference))
    assert await bench.reason() == (502, "integrity")


async def test_a_registry_that_breaks_off_for_good_cuts_the_body(bench: Bench) -> None:
    bench.registry.script("*/blobs/*", truncate(300_000), drop())
    status, got, complete = await bench.read()
    assert (status, complete) == (200, False)
    assert PAYLOAD.startswith(got)
    assert bench.last_pull.outcome == "cut"
    assert bench.last_pull.reason == "upstream-unreachable"


async def test_a_wrong_content_type_changes_nothing(bench: Bench) -> None:
    bench.registry.script("*", header("Content-Type", "text/html"))
    assert await bench.read() == (200, PAYLOAD, True)


async def test_strict_sends_nothing_before_the_verdict(tmp_path: Path) -> None:
    tuning = Tuning(limits=TransferLimits(strict=True, resume=RetryPolicy(attempts=1)))
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        target = await facade.sign(registry, "org/app", IMAGE)
        async with facade.device() as kiosk:
            bench = Bench(facade, registry, target, kiosk)
            registry.script("*/blobs/*", corrupt(SIZE - 1))
            assert await bench.reason() == (502, "integrity")


@pytest.mark.parametrize(
    "change",
    [corrupt(), wrong_bytes(b"{}"), truncate(10), longer_by(1), wrong_bytes(b" " * 5_000_000)],
)
async def test_a_manifest_is_verified_whole_before_it_is_sent(
    tmp_path: Path, change: Misbehaviour
) -> None:
    async with (
        FacadeApp(tmp_path, tuning=Tuning(keep_manifests=False)) as facade,
        Registry() as registry,
    ):
        target = await facade.sign(registry, "org/app", IMAGE)
        registry.script("*/manifests/*", change)
        async with facade.device() as kiosk:
            bench = Bench(facade, registry, target, kiosk)
            async with kiosk.get(bench.manifest) as answer:
                assert answer.status in (502, 504)
                assert (await answer.json())["errors"][0]["code"] == "UNKNOWN"


async def test_the_signed_media_type_is_served_whatever_the_registry_claims(
    tmp_path: Path,
) -> None:
    async with (
        FacadeApp(tmp_path, tuning=Tuning(keep_manifests=False)) as facade,
        Registry() as registry,
    ):
        target = await facade.sign(registry, "org/app", IMAGE)
        registry.script("*/manifests/*", header("Content-Type", "text/html"))
        async with facade.device() as kiosk:
            bench = Bench(facade, registry, target, kiosk)
            async with kiosk.get(bench.manifest) as answer:
                assert (answer.status, answer.headers["Content-Type"]) == (200, target.media_type)


@pytest.mark.parametrize("at", [0, SIZE // 2, SIZE - 1])
async def test_one_flipped_bit_in_the_cache_cuts_and_is_fetched_anew(bench: Bench, at: int) -> None:
    assert await bench.read() == (200, PAYLOAD, True)
    await bench.facade.settled()
    stored = bench.facade.folder / "cache" / "blobs" / "sha256" / LAYER.hex[:2] / LAYER.hex
    spoiled = bytearray(stored.read_bytes())
    spoiled[at] ^= 1
    stored.chmod(0o600)
    with stored.open("r+b") as file:
        file.write(spoiled)
    status, got, complete = await bench.read()
    if at == 0:  # nothing was sent yet: a proper answer
        assert status == 502
    else:
        assert (status, complete) == (200, False)
        assert PAYLOAD.startswith(got)
    assert len(bench.failures) == 1
    assert await bench.read() == (200, PAYLOAD, True)
    assert bench.registry.count("*/blobs/*") == 2


# Streams that must end while they run.


async def slowly(bench: Bench, piece: int = 16 * 1024, pause: float = 0.1) -> None:
    bench.registry.script("*/blobs/*", trickle(piece, pause))


async def is_cut_within(bench: Bench, seconds: float) -> bool:
    """Whether a running pull ends, without its end, in time."""
    async with asyncio.timeout(seconds):
        _status, got, complete = await bench.read()
    return not complete and len(got) < SIZE


async def test_revoking_cuts_a_running_stream(bench: Bench) -> None:
    await slowly(bench)
    reading = asyncio.create_task(is_cut_within(bench, CUT_WITHIN_SECONDS))
    await asyncio.sleep(0.5)
    bench.facade.control.revoke("dev", "kiosk-7", bench.facade.clock.time())
    assert await reading
    await bench_settled(bench)
    assert (bench.last_pull.outcome, bench.last_pull.reason) == ("cut", "device-revoked")


async def test_withdrawing_cuts_a_running_stream(bench: Bench) -> None:
    await slowly(bench)
    reading = asyncio.create_task(is_cut_within(bench, CUT_WITHIN_SECONDS))
    await asyncio.sleep(0.5)
    await bench.facade.withdraw(bench.target)
    assert await reading
    await bench_settled(bench)
    assert (bench.last_pull.outcome, bench.last_pull.reason) == ("cut", "not-signed")


async def test_removing_the_connection_cuts_a_running_stream(bench: Bench) -> None:
    await slowly(bench)
    reading = asyncio.create_task(is_cut_within(bench, CUT_WITHIN_SECONDS))
    await asyncio.sleep(0.5)
    bench.facade.control.disconnect(bench.registry.host)
    assert await reading


async def test_a_stream_that_waits_for_a_dead_registry_is_cut_too(bench: Bench) -> None:
    bench.registry.script("*/blobs/*", stall(after=100))
    reading = asyncio.create_task(is_cut_within(bench, CUT_WITHIN_SECONDS))
    await asyncio.sleep(0.5)
    bench.facade.control.revoke("dev", "kiosk-7", bench.facade.clock.time())
    assert await reading
    await bench_settled(bench)
    assert bench.last_pull.reason == "device-revoked"


async def test_a_device_that_leaves_disturbs_nobody(bench: Bench) -> None:
    await slowly(bench, pause=0.01)
    async with bench.facade.device(name="kiosk-8") as neighbour:
        first = asyncio.create_task(bench.read())
        await asyncio.sleep(0.1)
        async with neighbour.get(bench.blob) as answer:
            second = asyncio.create_task(answer.read())
            await asyncio.sleep(0.1)
            first.cancel()
            assert await second == PAYLOAD
    assert bench.registry.count("*/blobs/*") == 1
    await bench_settled(bench)
    outcomes = {
        event.device: event.outcome
        for event in bench.facade.control.events
        if isinstance(event, Pulled)
    }
    assert outcomes == {"dev/kiosk-7": "left", "dev/kiosk-8": "served"}


async def bench_settled(bench: Bench) -> None:
    """Return when no stream is watched any more: all are written down."""
    async with asyncio.timeout(5):
        while bench.facade.guard.running:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
    await asyncio.sleep(0)
