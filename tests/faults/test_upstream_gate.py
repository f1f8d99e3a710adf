"""A registry that limits, fails or is gone, behind a running device port: who waits, who is told what.

The circuits' pauses are the real ones (a second, then two, …), so these tests take seconds.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from facade.oci.digest import Digest
from facade.upstream.retry import RetryPolicy, Timeouts
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import one_layer_image
from tests.support.misbehaviour import chain, header, rate_limited, status
from tests.support.registry import Registry

DEVICES = 30
PATIENT = Tuning(
    transfers=8,
    retry=RetryPolicy(attempts=8, base_seconds=0.05),
    timeouts=Timeouts(unreachable=20.0, first_byte=30.0),
)
HASTY = Tuning(
    transfers=8,
    retry=RetryPolicy(attempts=2, base_seconds=0.01),
    timeouts=Timeouts(unreachable=1.0, first_byte=2.0),
)


@dataclass
class Bench:
    facade: FacadeApp
    registry: Registry
    layers: list[Digest]

    async def pull(self, number: int, kind: str = "blobs", digest: Digest | None = None) -> int:
        """One device's request for its own layer, or for `digest`; the status."""
        at = path(self.registry, "org/app", kind, digest or self.layers[number])
        async with (
            self.facade.device(name=f"kiosk-{number}") as kiosk,
            kiosk.get(at) as answer,
        ):
            await answer.read()
            self.retry_after = answer.headers.get("Retry-After")
            return answer.status

    def metric(self, name: str) -> float:
        host = str(self.registry.host)
        for line in self.facade.metrics.render().decode().splitlines():
            if line.startswith(f"facade_upstream_{name}{{") and f'host="{host}"' in line:
                return float(line.rpartition(" ")[2])
        return -1.0


async def _bench(tmp_path: Path, tuning: Tuning) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        images = [one_layer_image(f"layer {n}".encode()) for n in range(DEVICES)]
        for number, image in enumerate(images):
            await facade.sign(registry, "org/app", image, name=f"app{number}")
        layers = [Digest.of(f"layer {n}".encode()) for n in range(DEVICES)]
        yield Bench(facade, registry, layers)


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Bench]:
    async for bench in _bench(tmp_path, PATIENT):
        yield bench


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Bench]:
    async for bench in _bench(tmp_path, HASTY):
        yield bench


async def test_a_storm_of_429_costs_one_request_at_a_time_and_no_device(patient: Bench) -> None:
    bench = patient
    assert await bench.pull(0) == 200  # and from the cache from now on
    bench.registry.script("*/blobs/*", rate_limited("1"))
    pulls = [asyncio.create_task(bench.pull(number)) for number in range(1, DEVICES)]
    async with asyncio.timeout(20):
        while bench.metric("circuit_open") != 1.0:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
    began = time.monotonic()
    assert await bench.pull(0) == 200  # what is cached does not notice
    await asyncio.sleep(2.5)
    seconds = time.monotonic() - began
    limited = bench.registry.count("*/blobs/*") - 1
    # Those that were under way when the first 429 came, then a probe per second at most.
    assert limited <= PATIENT.transfers + seconds + 1
    assert not any(pull.done() for pull in pulls)
    bench.registry.behave()
    assert set(await asyncio.gather(*pulls)) == {200}
    assert bench.metric("circuit_open") == 0.0
    assert bench.metric("circuit_opened_total") == 1.0


async def test_a_registry_that_is_gone_is_probed_and_heals(hasty: Bench) -> None:
    bench = hasty
    assert await bench.pull(0) == 200
    port = bench.registry.port
    await bench.registry.stop()
    outcomes = await asyncio.gather(*(bench.pull(number) for number in range(1, 12)))
    assert set(outcomes) == {504}
    assert bench.metric("circuit_open") == 1.0
    assert await bench.pull(0) == 200
    await bench.registry.start(port)
    async with asyncio.timeout(30):
        while await bench.pull(1) != 200:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.1)
    assert bench.metric("circuit_open") == 0.0
    assert await bench.pull(2) == 200


async def test_a_registry_that_fails_opens_and_says_refused(hasty: Bench) -> None:
    bench = hasty
    bench.registry.script("*/blobs/*", status(500))
    outcomes = await asyncio.gather(*(bench.pull(number) for number in range(8)))
    assert set(outcomes) == {502}
    assert bench.metric("circuit_open") == 1.0


async def test_a_repository_that_lacks_something_closes_nothing(hasty: Bench) -> None:
    bench = hasty
    for layer in bench.layers[1:13]:
        bench.registry.forget("org/app", layer)
    outcomes = [await bench.pull(number) for number in range(1, 13)]
    assert set(outcomes) == {404}
    assert bench.metric("circuit_open") == 0.0
    assert await bench.pull(0) == 200


async def test_the_last_of_an_announced_budget_is_not_burnt(tmp_path: Path) -> None:
    """As Docker Hub counts: manifests, not blobs; its window slides, so no reset is announced."""
    tuning = Tuning(keep_manifests=False, retry=HASTY.retry, timeouts=HASTY.timeouts)
    async for bench in _bench(tmp_path, tuning):
        images = [one_layer_image(f"layer {n}".encode()).index for n in range(4)]
        left = chain(
            header("ratelimit-limit", "100;w=21600"), header("ratelimit-remaining", "3;w=21600")
        )
        bench.registry.script("*/manifests/*", left)
        first = [await bench.pull(0, "manifests", images[0])]
        rest = [await bench.pull(n, "manifests", images[n]) for n in (1, 2, 3)]
        assert first == [200]
        assert rest.count(200) <= 1  # the pace allows one, once
        assert rest[-1] == 429
        assert 1 <= int(bench.retry_after or 0) <= 216
        assert bench.registry.count("*/manifests/*") <= 2
        assert await bench.pull(0, "manifests", images[0]) == 200  # cached
        assert bench.metric("budget_remaining") == 3.0
        assert bench.metric("circuit_open") == 0.0
