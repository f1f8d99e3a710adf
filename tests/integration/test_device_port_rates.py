"""Rates of one device over real mutual TLS: slowed down first, then 429; nobody else is."""

import asyncio
import time
from pathlib import Path

from facade.serving.identity.limits import TlsLimits
from facade.serving.pulls.rates import Rates
from tests.support.facade_app import FacadeApp, Tuning, path
from tests.support.image import one_layer_image
from tests.support.registry import Registry

LAYER = bytes(range(256)) * 8192  # 2 MiB
IMAGE = one_layer_image(LAYER)
BLOB = next(digest for digest, data in IMAGE.blobs.items() if data == LAYER)


async def test_a_device_that_asks_too_often_waits_and_then_gets_429(tmp_path: Path) -> None:
    tuning = Tuning(rates=Rates(requests_per_second=2), wait_seconds=1.0)
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", IMAGE)
        at = path(registry, "org/app", "manifests", IMAGE.index)
        async with facade.device() as kiosk, facade.device(name="kiosk-8") as other:

            async def ask() -> tuple[int, bytes, str]:
                async with kiosk.get(at) as answer:
                    return answer.status, await answer.read(), answer.headers.get("Retry-After", "")

            answers = await asyncio.gather(*(ask() for _ in range(50)))
            refused = [answer for answer in answers if answer[0] != 200]
            assert len(answers) - len(refused) >= 32
            assert refused
            for status, body, retry_after in refused:
                assert (status, b'"device-rate-limited"' in body) == (429, True)
                assert b"TOOMANYREQUESTS" in body
                assert int(retry_after) >= 1
            async with other.get(at) as answer:
                assert answer.status == 200
        assert facade.metrics.registry.get_sample_value(
            "facade_device_rate_waits_total", {"limit": "requests"}
        )


async def test_bytes_go_out_at_the_devices_rate_and_the_day_ends_them(tmp_path: Path) -> None:
    """Being slowed down by us is no slowness of the device's: the limit on that does not cut it."""
    tuning = Tuning(
        rates=Rates(bytes_per_second=1024 * 1024, bytes_per_day=len(LAYER)),
        tls=TlsLimits(stall_seconds=0.3, min_bytes_per_second=100_000_000),
    )
    async with FacadeApp(tmp_path, tuning=tuning) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", IMAGE)
        at = path(registry, "org/app", "blobs", BLOB)
        async with facade.device() as kiosk:
            begun = time.monotonic()
            async with kiosk.get(at) as answer:
                assert await answer.read() == LAYER
            assert time.monotonic() - begun > 0.7  # a second's worth at once, a second for the rest
            async with kiosk.get(at) as answer:
                assert (answer.status, b'"device-rate-limited"' in await answer.read()) == (
                    429,
                    True,
                )
        async with facade.device(name="kiosk-8") as other, other.get(at) as answer:
            assert await answer.read() == LAYER
