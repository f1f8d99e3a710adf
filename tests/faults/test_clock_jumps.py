"""A wall clock that jumps, under a whole facade on real sockets whose clock the test moves.

The signing side uses the same clock, as on one machine. (tuf itself reads the machine's clock; what
that refuses is tried in the attacks.)
"""

import os
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from facade.config import load
from facade.demo.image import Image
from facade.up.run import Running, started
from facade.up.state import StateFolder
from tests.support.facade_process import FacadeProcess, run
from tests.support.image import one_layer_image
from tests.support.registry import BearerAuth, Registry
from tests.support.token_server import TokenServer
from tests.support.tuning import MovableClock

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

REPOSITORY = "acme/kiosk"
MINUTE = 60.0
TAGS = [f"v{number}" for number in range(6)]
IMAGES = {tag: one_layer_image(tag.encode() * 50_000) for tag in TAGS}


@dataclass
class Scene:
    """A running facade with its clock, a registry that wants tokens, and signed images by tag."""

    running: Running
    clock: MovableClock
    registry: Registry
    tokens: TokenServer
    context: ssl.SSLContext

    async def pull(self, tag: str) -> tuple[int, str]:
        """All of the image: 200, or the status and reason of the first refusal."""
        image: Image = IMAGES[tag]
        url = self.running.server.urls["device"]
        base = f"{url}/v2/{self.registry.host.path_segment}/{REPOSITORY}"
        contents = {digest: data for digest, (_, data) in image.manifests.items()} | dict(
            image.blobs
        )
        async with aiohttp.ClientSession() as session:
            for digest, data in contents.items():
                kind = "manifests" if digest in image.manifests else "blobs"
                async with session.get(f"{base}/{kind}/{digest}", ssl=self.context) as answer:
                    if answer.status != 200:
                        error = (await answer.json())["errors"][0]
                        return answer.status, error["detail"]["reason"]
                    assert await answer.read() == data
        return 200, ""

    async def probe(self) -> tuple[int, str]:
        """The status of /readyz, and its reasons in one text."""
        url = f"{self.running.server.urls['metrics']}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, str((await answer.json())["reasons"])

    async def refused(self, reason: str) -> None:
        """Nothing is served, cached or not, and the operator sees why."""
        for tag in ("v0", "v5"):
            assert await self.pull(tag) == (503, reason)
        status, reasons = await self.probe()
        assert status == 503
        assert reason in reasons

    async def serves(self, tag: str) -> None:
        """An image, and what is cached."""
        assert await self.pull(tag) == (200, "")
        assert await self.pull("v0") == (200, "")
        assert (await self.probe())[0] == 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder = tmp_path_factory.mktemp("clock")
    state, certificates = folder / "state", folder / "certificates"
    clock = MovableClock()
    settings = load(None, {**FacadeProcess.DEFAULTS, "PATH": os.environ["PATH"]})

    async def cli(*arguments: str | Path) -> None:
        done = await run(
            *(sys.executable, "-m", "facade.cli.main", *arguments),
            env={"FACADE_STATE": str(state)},
        )
        assert done.code == 0, done

    async with (
        TokenServer(anonymous=None) as tokens,
        Registry(auth=BearerAuth(tokens)) as registry,
        started(StateFolder(state), (), settings, clock) as running,
    ):
        for tag, image in IMAGES.items():
            registry.add_image(REPOSITORY, image, tag)
        await cli("registry", "add", str(registry.host), "--anonymous", "--insecure")
        places = [f"{registry.host}/{REPOSITORY}:{tag}" for tag in TAGS]
        await cli("artifact", "import", *places, "--fleet", "dev")
        clock.offset = -90 * MINUTE  # so that the certificate is valid whenever it is looked at
        await cli("device", "issue", "dev/kiosk-1", "--out", certificates)
        clock.offset = 0.0
        context = ssl.create_default_context(cafile=certificates / "ca.crt")
        context.load_cert_chain(certificates / "client.cert", certificates / "client.key")
        it = Scene(running, clock, registry, tokens, context)
        assert await it.pull("v0") == (200, "")
        yield it


async def test_small_corrections_either_way_are_nobodys_business(scene: Scene) -> None:
    for tag, offset in (("v1", 2 * MINUTE), ("v2", -2 * MINUTE)):
        scene.clock.offset = offset
        await scene.serves(tag)


async def test_a_clock_set_back_stops_everything_until_it_is_right(scene: Scene) -> None:
    scene.clock.offset = -60 * MINUTE
    await scene.refused("clock-set-back")
    scene.clock.offset = 0.0
    await scene.serves("v3")


async def test_a_clock_ahead_costs_tokens_and_then_freshness(scene: Scene) -> None:
    """Ahead by more than tokens live: new ones are had. By more than metadata lives: nothing."""
    exchanges = len(scene.tokens.requests)
    scene.clock.offset = 60 * MINUTE
    await scene.serves("v4")
    assert len(scene.tokens.requests) > exchanges
    scene.clock.offset = 2 * 24 * 60 * MINUTE
    await scene.refused("metadata-expired")
    # It was ahead, and is right now: that cannot be told from one set back. A person forgives it.
    scene.clock.offset = 0.0
    await scene.refused("clock-set-back")
