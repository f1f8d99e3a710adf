"""A wall clock that jumps, under the whole device port on real sockets, whose clock the test moves.

In each nothing is served that might have expired; readiness says why; where the clock is right again,
serving goes on by itself. (tuf itself reads the machine's clock; what that refuses is tried in the
attacks, and a restart under a clock that was set back as well.)
"""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from facade.app.checks import metadata_check
from facade.observability.health import Severity
from tests.support.facade_app import FacadeApp, path
from tests.support.image import one_layer_image
from tests.support.pki import now
from tests.support.registry import Registry

MINUTE = 60.0
DAY = 24 * 60 * MINUTE
CACHED = one_layer_image(b"cached" * 50_000)
FRESH = one_layer_image(b"fresh" * 50_000)


@dataclass
class Bench:
    """The port, one image that is cached and one that is not, and a device whose certificate is
    valid whatever the clock says here.
    """

    facade: FacadeApp
    registry: Registry
    kiosk: aiohttp.ClientSession

    async def pull(self) -> set[tuple[int, str]]:
        """How both images' contents were answered: status and reason."""
        answers = set()
        for image in (CACHED, FRESH):
            for digest, data in image.blobs.items():
                place = path(self.registry, "org/app", "blobs", digest)
                async with self.kiosk.get(place) as answer:
                    if answer.status == 200:
                        assert await answer.read() == data
                        answers.add((200, ""))
                    else:
                        assert int(answer.headers["Retry-After"]) > 0
                        error = (await answer.json())["errors"][0]
                        answers.add((answer.status, error["detail"]["reason"]))
        return answers

    def unready(self) -> str:
        """Why /readyz would say 503; "" when it would not."""
        findings = metadata_check(self.facade.refresher.status())
        return "; ".join(f.reason for f in findings if f.severity is Severity.UNREADY)

    async def serves(self) -> None:
        """Everything."""
        assert await self.pull() == {(200, "")}
        assert self.unready() == ""

    async def refuses(self, reason: str) -> None:
        """Everything, cached or not, and the operator sees why."""
        asked = self.registry.count()
        assert await self.pull() == {(503, reason)}
        assert reason in self.unready()
        assert self.registry.count() == asked


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FacadeApp(tmp_path) as facade, Registry() as registry:
        await facade.sign(registry, "org/app", CACHED)
        await facade.sign(registry, "org/app", FRESH, version="v2")
        leaf = facade.ca.device(
            not_before=now() - dt.timedelta(days=9), not_after=now() + dt.timedelta(days=900)
        )
        async with facade.device(leaf=leaf) as kiosk:
            for digest in CACHED.blobs:
                place = path(registry, "org/app", "blobs", digest)
                async with kiosk.get(place) as answer:
                    assert answer.status == 200
            yield Bench(facade, registry, kiosk)


async def test_small_corrections_either_way_are_nobodys_business(bench: Bench) -> None:
    for offset in (2 * MINUTE, -2 * MINUTE, 0.0):
        bench.facade.clock.offset = offset
        await bench.serves()


async def test_a_clock_set_back_stops_everything_until_it_is_right(bench: Bench) -> None:
    bench.facade.clock.offset = -60 * MINUTE
    await bench.refuses("clock-set-back")
    bench.facade.clock.offset = 0.0
    await bench.serves()


async def test_a_clock_far_ahead_finds_everything_expired(bench: Bench) -> None:
    """And when it is right again, that cannot be told from one set back: a person forgives it."""
    bench.facade.clock.offset = 300 * DAY
    await bench.refuses("metadata-expired")
    bench.facade.clock.offset = 0.0
    await bench.refuses("clock-set-back")
